# shellcheck shell=bash
# A core dump of a program that has just encrypted holds neither the DEK nor what the token was logged in
# with: the PIN, or a transit engine's token.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
case $(cat /proc/sys/kernel/core_pattern) in
"|"* | /*)
    if ! command -v gcore >/dev/null; then
        echo "skipped: core files go elsewhere (/proc/sys/kernel/core_pattern) and gcore is not installed"
        exit 77
    fi
    ;;
esac
rig
case $backend in
softhsm) cp rig/pin credentials ;;
aws)
    # In the environment they would be in any dump.
    printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >aws.credentials
    printf '%s\n' "$AWS_SECRET_ACCESS_KEY" >credentials
    export AWS_SHARED_CREDENTIALS_FILE=$PWD/aws.credentials
    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    ;;
bao) cp token credentials ;;
esac

mkfifo ask answer
(ulimit -c unlimited; exec once_a_line) <ask >answer &
program=$!
exec 7>ask 8<answer
echo >&7
read -r -t 30 reply <&8
[ "$reply" = ok ] || fail "$reply"
case $(cat /proc/sys/kernel/core_pattern) in
"|"* | /*)
    gcore -o core "$program" >gcore.log 2>&1 || {
        echo "skipped: gcore may not look into another process here: $(tail -n 1 gcore.log)"
        exit 77
    }
    exec 7>&-
    ;;
*) kill -ABRT "$program" ;;
esac
wait "$program" 2>/dev/null || true
core=$(find . -maxdepth 1 -name 'core*' -type f -size +0 ! -name '*.log' | head -n 1)
if [ -z "$core" ]; then
    echo "skipped: no core file was written here"
    exit 77
fi

OPENSSL_CONF=/dev/null $python "$SOURCE_DIR/tests/integration/core_dump.py" rig "$core" credentials
