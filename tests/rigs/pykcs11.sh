#!/bin/bash
# A foreign program in Python in front of AWS KMS: PyKCS11, from the system (python3-pykcs11), or from PyPI into a venv
# kept outside the checkout.
set -u
# shellcheck source=tests/rigs/aws-rig.sh
. "$SOURCE_DIR/tests/rigs/aws-rig.sh"

# Prints the Python that has PyKCS11.
find_python() {
    local candidate venv=${XDG_CACHE_HOME:-$HOME/.cache}/envelope-rigs/pykcs11-1.5
    for candidate in "${ENVELOPE_PYKCS11_PYTHON:-}" /usr/bin/python3 "$venv/bin/python"; do
        if [[ $candidate && -x $candidate ]] && "$candidate" -c 'import PyKCS11' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    mkdir -p "${venv%/*}"
    (
        flock 9
        "$venv/bin/python" -c 'import PyKCS11' 2>/dev/null && exit 0
        rm -rf "$venv" && python3 -m venv "$venv" &&
            "$venv/bin/pip" install -q --only-binary :all: 'PyKCS11==1.5.*'
    ) 9>"${venv%/*}/pykcs11.lock" >"${venv%/*}/pykcs11.log" 2>&1 || aws_rig_skip \
        "PyKCS11 is not installed (python3-pykcs11) and PyPI does not give it: $(tail -n 1 "${venv%/*}/pykcs11.log")"
    echo "$venv/bin/python"
}

# A sanitizer's runtime must be the program's own, and Python has none.
[[ ! ${ENVELOPE_SANITIZE-} ]] || aws_rig_skip "Python cannot load a module built with -fsanitize=$ENVELOPE_SANITIZE"
python=$(find_python) || exit
trap aws_rig_stop EXIT
aws_rig_start "$SCRATCH/rig" || exit 1
aws_rig_credentials ALLOWED
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf ENVELOPE_KMS_LOG=stderr
aws_rig_config "$ENVELOPE_KMS_CONFIG"
timeout 120 "$python" "$SOURCE_DIR/tests/rigs/pykcs11_client.py" "$BUILD_DIR/pkcs11/envelope-kms.so" \
    "$RIG_FIRST_ARN" "$RIG_SECOND_ARN" 2>"$SCRATCH/client.err"
status=$?
[[ $status = 0 ]] || tail -n 20 "$SCRATCH/client.err" >&2
exit $status
