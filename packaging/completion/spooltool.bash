# SPDX-License-Identifier: Apache-2.0
# bash completion: the commands are those that spooltool help lists, so that this file never lags behind.
_spooltool() {
    local current=${COMP_WORDS[COMP_CWORD]} words=() i commands
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -c) i=$((i + 1)) ;;
            -*) ;;
            *) words+=("${COMP_WORDS[i]}") ;;
        esac
    done
    [ "${COMP_WORDS[COMP_CWORD - 1]}" != -c ] || { mapfile -t COMPREPLY < <(compgen -f -- "$current"); return; }
    commands=$(spooltool help 2>/dev/null | sed -n 's/^  \([a-z].*\)/\1/p')
    case ${#words[@]} in
        0) mapfile -t COMPREPLY < <(compgen -W "$(cut -d' ' -f1 <<<"$commands" | sort -u)" -- "$current") ;;
        1) mapfile -t COMPREPLY < <(compgen -W "$(awk -v w="${words[0]}" '$1 == w && $2 ~ /^[a-z]/ {print $2}' <<<"$commands")" -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$(awk -v a="${words[0]}" -v b="${words[1]}" '$1 == a && $2 == b' <<<"$commands" |
            grep -o -- '--[a-z-]*' | sort -u) --json" -- "$current") ;;
    esac
}
complete -F _spooltool spooltool
