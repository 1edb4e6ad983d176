"""AES-256 by the book (FIPS 197, SP 800-38A and -38D), so that what a client encrypted is opened by code that shares
nothing with OpenSSL.   aes.py DEK-HEX cbc|ctr|gcm IV-HEX < ciphertext > plaintext   (gcm: the tag follows the data)"""
import sys


def _xtime(a):
    return ((a << 1) ^ 0x1B) & 0xFF if a & 0x80 else a << 1


def _multiply(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a, b = _xtime(a), b >> 1
    return product


def _sbox():
    box = []
    for value in range(256):
        inverse = next((x for x in range(256) if _multiply(value, x) == 1), 0)
        result = 0x63
        for turn in range(5):
            result ^= ((inverse << turn) | (inverse >> (8 - turn))) & 0xFF
        box.append(result)
    return box


SBOX = _sbox()
INVERSE = [SBOX.index(value) for value in range(256)]
TIMES = {factor: [_multiply(value, factor) for value in range(256)] for factor in (2, 3, 9, 11, 13, 14)}


class AES:
    def __init__(self, key):
        assert len(key) == 32
        words, constant = [list(key[i:i + 4]) for i in range(0, 32, 4)], 1
        while len(words) < 60:
            word = list(words[-1])
            if len(words) % 8 == 0:
                word = [SBOX[byte] for byte in word[1:] + word[:1]]
                word[0] ^= constant
                constant = _xtime(constant)
            elif len(words) % 8 == 4:
                word = [SBOX[byte] for byte in word]
            words.append([a ^ b for a, b in zip(words[-8], word)])
        self.rounds = [sum(words[i:i + 4], []) for i in range(0, 60, 4)]

    @staticmethod
    def _mix(state, factors):
        mixed = []
        for column in range(0, 16, 4):
            for row in range(4):
                byte = 0
                for i, factor in enumerate(factors):
                    value = state[column + (row + i) % 4]
                    byte ^= TIMES[factor][value] if factor > 1 else value
                mixed.append(byte)
        return mixed

    def encrypt(self, block):
        state = [a ^ b for a, b in zip(block, self.rounds[0])]
        for number, key in enumerate(self.rounds[1:], 1):
            state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
            if number < 14:
                state = self._mix(state, (2, 3, 1, 1))
            state = [a ^ b for a, b in zip(state, key)]
        return bytes(state)

    def decrypt(self, block):
        state = list(block)
        for number in range(14, 0, -1):
            state = [a ^ b for a, b in zip(state, self.rounds[number])]
            if number < 14:
                state = self._mix(state, (14, 11, 13, 9))
            state = [INVERSE[state[(i - 4 * (i % 4)) % 16]] for i in range(16)]
        return bytes(a ^ b for a, b in zip(state, self.rounds[0]))


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def blocks(data):
    return [data[i:i + 16] for i in range(0, len(data), 16)]


def cbc(aes, iv, data):
    plain = b"".join(xor(aes.decrypt(block), before) for block, before in zip(blocks(data), [iv] + blocks(data)))
    padding = plain[-1]
    if not 1 <= padding <= 16 or plain[-padding:] != bytes([padding]) * padding:
        raise ValueError("bad padding: another key")
    return plain[:-padding]


def ctr(aes, counter, data):
    number = int.from_bytes(counter, "big")
    return b"".join(xor(aes.encrypt(((number + i) % 2 ** 128).to_bytes(16, "big")), block)
                    for i, block in enumerate(blocks(data)))


def ghash(h, data):
    h, y = int.from_bytes(h, "big"), 0
    for block in blocks(data):
        x, v, y = y ^ int.from_bytes(block, "big"), h, 0
        for bit in range(127, -1, -1):
            if x >> bit & 1:
                y ^= v
            v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
    return y.to_bytes(16, "big")


def gcm(aes, iv, sealed, aad=b""):
    assert len(iv) == 12
    data, tag = sealed[:-16], sealed[-16:]
    padded = b"".join(part + bytes(-len(part) % 16) for part in (aad, data))
    lengths = (8 * len(aad)).to_bytes(8, "big") + (8 * len(data)).to_bytes(8, "big")
    expected = xor(ghash(aes.encrypt(bytes(16)), padded + lengths), aes.encrypt(iv + b"\0\0\0\1"))
    if expected != tag:
        raise ValueError("bad tag: another key")
    return ctr(aes, iv + b"\0\0\0\2", data)


if __name__ == "__main__":
    dek, mode, iv_hex = sys.argv[1:4]
    # FIPS 197, C.3: a test that its own tools do not pass says nothing.
    known = AES(bytes(range(32))).encrypt(bytes.fromhex("00112233445566778899aabbccddeeff"))
    assert known.hex() == "8ea2b7ca516745bfeafc49904b496089"
    opened = {"cbc": cbc, "ctr": ctr, "gcm": gcm}[mode](
        AES(bytes.fromhex(dek)), bytes.fromhex(iv_hex), sys.stdin.buffer.read())
    sys.stdout.buffer.write(opened)
