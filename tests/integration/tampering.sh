# shellcheck shell=bash
# Whatever is changed in a ciphertext, it does not open; and the program that opens it fails.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
head -c 1000 /dev/urandom >plain
encrypt "$zero" plain sealed

flip() { # OFFSET
    $python -c 'import sys; d = bytearray(open("sealed", "rb").read()); d[int(sys.argv[1])] ^= 1; open("flipped", "wb").write(d)' "$1"
}
# one_flipped_bit_is_refused: in the DEK id, the nonce, the data, the tag
for offset in 0 3 4 15 16 500 1015 1016 1031; do
    flip "$offset"
    refused 'DEK id|tag|authentic|damaged|not made' decrypt "$zero" flipped opened
done
# truncation_is_refused
for length in 1 4 16 31 32 100 1031; do
    head -c "$length" sealed >short
    refused . decrypt "$zero" short opened
done
# something_appended_is_refused
(cat sealed; echo more) >long
refused . decrypt "$zero" long opened
# and_untouched_it_opens
decrypt "$zero" sealed opened
cmp plain opened
