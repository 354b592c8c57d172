/* SPDX-License-Identifier: Apache-2.0 */
/* A certificate for "mx.test" and its key, made anew for each run in a temporary file: no key lies in the repository. */
#ifndef TESTS_SELF_SIGNED_H
#define TESTS_SELF_SIGNED_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Writes certificate and key into one file; `path` receives its name, to be unlinked by the caller. */
static inline bool self_signed_make(char path[64])
{
    snprintf(path, 64, "/tmp/ironspool-test-XXXXXX");
    int fd = mkstemp(path);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    bool ok = f && key && cert;
    if (ok) {
        X509_set_version(cert, 2);
        ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
        X509_gmtime_adj(X509_getm_notBefore(cert), -86400);
        X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
        X509_set_pubkey(cert, key);
        X509_NAME *name = X509_get_subject_name(cert);
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"mx.test", -1, -1, 0);
        X509_set_issuer_name(cert, name);
        X509_EXTENSION *alt = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:mx.test");
        ok = alt && X509_add_ext(cert, alt, -1) && X509_sign(cert, key, EVP_sha256()) > 0 && PEM_write_X509(f, cert) &&
             PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
        X509_EXTENSION_free(alt);
    }
    if (f)
        fclose(f);
    X509_free(cert);
    EVP_PKEY_free(key);
    return ok;
}

#endif
