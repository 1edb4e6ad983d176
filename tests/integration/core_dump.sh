# shellcheck shell=bash
# A core dump of a program that has just encrypted holds neither the DEK nor the PIN.
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
module=$(sed -n 's/^module *= *//p' rig/envelope.cnf)

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

OPENSSL_CONF=/dev/null $python - "$module" "$core" <<'END'
import mmap, sqlite3, struct, subprocess, sys
module, core = sys.argv[1:]
pin = open("rig/pin").read().strip()
store = sqlite3.connect("rig/keys.db")
(store_id,) = store.execute("SELECT store_id FROM store_meta").fetchone()
dek_id, version, kek_id, blob = store.execute(
    "SELECT dek_id, version, kek_id, encrypted_key_blob FROM encryption_key_version").fetchone()
aad = b"envelope wrap v1" + store_id + struct.pack(">III", dek_id, version, kek_id) + b"\x01\x07default"
dek = bytes.fromhex(subprocess.run(["unwrap_by_hand", module, "envelope", pin, "master", blob.hex(), aad.hex()],
                                   check=True, capture_output=True, text=True, timeout=60).stdout.strip())
with open(core, "rb") as file:
    memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # The dump is one of this program, and searching it works: something that must be there is.
    assert memory.find(b"once a line") >= 0
    assert memory.find(dek) < 0, "the DEK is in the core dump"
    # AES-NI and table code keep the first round keys as the key itself, possibly word by word in the other byte order.
    swapped = b"".join(dek[i:i + 4][::-1] for i in range(0, 32, 4))
    assert memory.find(swapped) < 0, "the DEK is in the core dump, byte-swapped"
    assert memory.find(dek[:16]) < 0 and memory.find(dek[16:]) < 0, "half of the DEK is in the core dump"
    assert memory.find(pin.encode()) < 0, "the PIN is in the core dump"
END
