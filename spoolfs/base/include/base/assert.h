/* SPDX-License-Identifier: Apache-2.0 */
/* ASSERT is for "we are wrong", is on in every build and never sees foreign bytes. */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

_Noreturn void assert_failed(const char *condition, const char *file, int line, const char *function);

#define ASSERT(c) \
    (__builtin_expect(!!(c), 1) ? (void)0 : assert_failed(#c, __FILE__, __LINE__, __func__))

#define UNREACHABLE() assert_failed("unreachable", __FILE__, __LINE__, __func__)

#endif
