"""A foreign PKCS#11 program, through the Python binding PyKCS11, in front of AWS KMS (see pykcs11.sh).

usage: pykcs11_client.py MODULE FIRST-ARN SECOND-ARN

The token "rig" has the keys alias/first, alias/second and alias/rsa. Says what does not hold and exits with 1.
"""

import ctypes
import os
import sys
import threading

import PyKCS11
from PyKCS11 import PyKCS11Error

CKM_ENVELOPE_KMS_WRAP = PyKCS11.CKM_VENDOR_DEFINED | 0x454E5601
DEK = bytes(range(32))
THREADS, ROUNDS = 6, 10
checks = 0


class KmsParams(ctypes.Structure):
    """CK_ENVELOPE_KMS_PARAMS of <envelope/pkcs11-kms.h>."""

    _fields_ = [("pAAD", ctypes.c_void_p), ("ulAADLen", ctypes.c_ulong), ("flags", ctypes.c_ulong)]


class KmsMechanism(PyKCS11.Mechanism):
    """The vendor mechanism, its parameter given as the bytes of the C structure."""

    def __init__(self, aad=b""):
        self.aad = ctypes.create_string_buffer(aad, len(aad) or 1)
        params = KmsParams(ctypes.addressof(self.aad) if aad else None, len(aad), 0)
        super().__init__(CKM_ENVELOPE_KMS_WRAP, bytes(params))


def check(truth, what):
    global checks
    if not truth:
        sys.exit(f"FAILED: {what}")
    checks += 1


def refused(code, what, call):
    try:
        call()
    except PyKCS11Error as error:
        check(error.value == code, f"{what}: {error}, not {PyKCS11.CKR.get(code, hex(code))}")
    else:
        sys.exit(f"FAILED: {what} was not refused")


def one(session, *template):
    found = session.findObjects(list(template))
    check(len(found) == 1, f"{len(found)} objects for {template}")
    return found[0]


def text(value):
    """Of an attribute: its versions do not agree on whether that is a str or bytes."""
    return value if isinstance(value, str) else bytes(value).decode()


def look_around(lib, slot, session, first_arn):
    token = lib.getTokenInfo(slot)
    check(token.label.strip() == "rig" and token.model.strip() == "AWS KMS", "the token's label and model")
    mechanisms = lib.getMechanismList(slot)
    vendor = [name for name in mechanisms if "454E5601" in name.upper()]
    check("CKM_RSA_PKCS_OAEP" in mechanisms and len(vendor) == 1, f"the mechanisms: {mechanisms}")
    check(lib.getMechanismInfo(slot, vendor[0]).flags & PyKCS11.CKF_WRAP, "what the vendor mechanism does")
    labels = sorted(text(session.getAttributeValue(o, [PyKCS11.CKA_LABEL])[0]) for o in session.findObjects())
    check(labels == ["alias/first", "alias/rsa", "alias/rsa", "alias/second"], f"labels: {labels}")
    key = one(session, (PyKCS11.CKA_LABEL, "alias/first"))
    names = [PyKCS11.CKA_CLASS, PyKCS11.CKA_KEY_TYPE, PyKCS11.CKA_SENSITIVE, PyKCS11.CKA_EXTRACTABLE,
             PyKCS11.CKA_NEVER_EXTRACTABLE, PyKCS11.CKA_VALUE_LEN, PyKCS11.CKA_ENCRYPT, PyKCS11.CKA_SIGN]
    values = session.getAttributeValue(key, names)
    check(values == [PyKCS11.CKO_SECRET_KEY, PyKCS11.CKK_AES, True, False, True, 32, True, False], f"values {values}")
    check(bytes(session.getAttributeValue(key, [PyKCS11.CKA_ID])[0]) == first_arn.encode(), "CKA_ID")
    check(session.getAttributeValue(key, [PyKCS11.CKA_VALUE]) == [None], "CKA_VALUE is kept from us")
    one(session, (PyKCS11.CKA_ID, tuple(first_arn.encode())))
    check(not session.findObjects([(PyKCS11.CKA_LABEL, "alias/nothing")]), "a key that is not there")
    public = one(session, (PyKCS11.CKA_LABEL, "alias/rsa"), (PyKCS11.CKA_CLASS, PyKCS11.CKO_PUBLIC_KEY))
    check(len(session.getAttributeValue(public, [PyKCS11.CKA_MODULUS])[0]) == 256, "the modulus")
    return key


def encrypt_and_decrypt(session, key, other):
    aad = b"financial/3"
    blob = bytes(session.encrypt(key, DEK, KmsMechanism(aad)))
    check(DEK not in blob and bytes(session.decrypt(key, blob, KmsMechanism(aad))) == DEK, "there and back")
    refused(PyKCS11.CKR_ENCRYPTED_DATA_INVALID, "other data", lambda: session.decrypt(key, blob, KmsMechanism(b"x")))
    refused(PyKCS11.CKR_ENCRYPTED_DATA_INVALID, "no data", lambda: session.decrypt(key, blob, KmsMechanism()))
    refused(PyKCS11.CKR_ENCRYPTED_DATA_INVALID, "other key", lambda: session.decrypt(other, blob, KmsMechanism(aad)))
    # No dry run here: the binding asks for the room with no buffer, and for none it cannot ask otherwise after that.
    plain = PyKCS11.Mechanism(CKM_ENVELOPE_KMS_WRAP)  # no parameter at all
    check(bytes(session.decrypt(key, session.encrypt(key, DEK, plain), KmsMechanism())) == DEK, "no parameter")
    check(len(session.generateRandom(24)) == 24, "random numbers")
    return blob


def wrap_and_unwrap(session, key):
    template = [(PyKCS11.CKA_CLASS, PyKCS11.CKO_SECRET_KEY), (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_AES),
                (PyKCS11.CKA_TOKEN, False), (PyKCS11.CKA_SENSITIVE, False), (PyKCS11.CKA_EXTRACTABLE, True)]
    made = session.createObject(template + [(PyKCS11.CKA_VALUE, tuple(DEK))])
    blob = session.wrapKey(key, made, KmsMechanism(b"tenant-7"))
    back = session.unwrapKey(key, blob, template, KmsMechanism(b"tenant-7"))
    check(bytes(session.getAttributeValue(back, [PyKCS11.CKA_VALUE])[0]) == DEK, "wrapped and unwrapped")
    refused(PyKCS11.CKR_WRAPPED_KEY_INVALID, "another tenant",
            lambda: session.unwrapKey(key, blob, template, KmsMechanism(b"tenant-8")))
    session.destroyObject(back)
    refused(PyKCS11.CKR_OBJECT_HANDLE_INVALID, "a destroyed object",
            lambda: session.getAttributeValue(back, [PyKCS11.CKA_LABEL]))


def rsa(session):
    public = one(session, (PyKCS11.CKA_LABEL, "alias/rsa"), (PyKCS11.CKA_CLASS, PyKCS11.CKO_PUBLIC_KEY))
    private = one(session, (PyKCS11.CKA_LABEL, "alias/rsa"), (PyKCS11.CKA_CLASS, PyKCS11.CKO_PRIVATE_KEY))
    oaep = PyKCS11.RSAOAEPMechanism(PyKCS11.CKM_SHA256, PyKCS11.CKG_MGF1_SHA256)
    blob = session.encrypt(public, DEK, oaep)
    check(len(blob) == 256 and bytes(session.decrypt(private, blob, oaep)) == DEK, "RSA-OAEP")
    odd = PyKCS11.RSAOAEPMechanism(PyKCS11.CKM_SHA256, PyKCS11.CKG_MGF1_SHA1)
    refused(PyKCS11.CKR_MECHANISM_PARAM_INVALID, "OAEP with two digests", lambda: session.encrypt(public, DEK, odd))
    refused(PyKCS11.CKR_KEY_FUNCTION_NOT_PERMITTED, "the public half decrypts",
            lambda: session.decrypt(public, blob, oaep))
    refused(PyKCS11.CKR_FUNCTION_NOT_SUPPORTED, "a signature", lambda: session.sign(private, DEK))


def wrong(lib, slot, session, key, blob):
    mechanism = KmsMechanism(b"financial/3")
    stray = PyKCS11.LowLevel.CK_OBJECT_HANDLE()
    stray.assign(999999)
    refused(PyKCS11.CKR_KEY_HANDLE_INVALID, "a wrong handle", lambda: session.decrypt(stray, blob, mechanism))
    short = PyKCS11.Mechanism(CKM_ENVELOPE_KMS_WRAP, b"12345678")
    refused(PyKCS11.CKR_MECHANISM_PARAM_INVALID, "a short parameter", lambda: session.encrypt(key, DEK, short))
    unknown = PyKCS11.Mechanism(PyKCS11.CKM_AES_CBC, bytes(16))
    refused(PyKCS11.CKR_MECHANISM_INVALID, "AES-CBC", lambda: session.encrypt(key, DEK, unknown))
    refused(PyKCS11.CKR_SLOT_ID_INVALID, "slot 99", lambda: lib.openSession(99))
    closed = lib.openSession(slot)
    closed.closeSession()
    refused(PyKCS11.CKR_SESSION_HANDLE_INVALID, "a closed session", lambda: closed.findObjects())
    check(bytes(session.decrypt(key, blob, mechanism)) == DEK, "the session works on")


def threads(lib, slot):
    failures = []

    def work(number):
        try:
            session = lib.openSession(slot)
            key = session.findObjects([(PyKCS11.CKA_LABEL, "alias/first")])[0]
            for turn in range(ROUNDS):
                aad = b"%d/%d" % (number, turn)
                blob = session.encrypt(key, DEK, KmsMechanism(aad))
                if bytes(session.decrypt(key, blob, KmsMechanism(aad))) != DEK:
                    failures.append("another plaintext")
            session.closeSession()
        except Exception as error:  # whatever it is, the test must say so
            failures.append(repr(error))

    running = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    check(not failures, f"threads: {failures[:3]}")


def fork(lib, slot):
    child = os.fork()
    if child == 0:
        try:
            lib.openSession(slot)
        except PyKCS11Error as error:
            os._exit(0 if error.value == PyKCS11.CKR_CRYPTOKI_NOT_INITIALIZED else 2)
        os._exit(1)
    check(os.waitpid(child, 0)[1] == 0, "a forked child must initialise anew")


def main():
    module, first_arn, second_arn = sys.argv[1:4]
    lib = PyKCS11.PyKCS11Lib()
    lib.load(module)
    slot = lib.getSlotList(tokenPresent=True)[0]
    session = lib.openSession(slot, PyKCS11.CKF_SERIAL_SESSION | PyKCS11.CKF_RW_SESSION)
    key = look_around(lib, slot, session, first_arn)
    other = one(session, (PyKCS11.CKA_ID, tuple(second_arn.encode())))
    blob = encrypt_and_decrypt(session, key, other)
    wrap_and_unwrap(session, key)
    rsa(session)
    wrong(lib, slot, session, key, blob)
    threads(lib, slot)
    fork(lib, slot)
    session.closeSession()
    print(f"passed: {checks} checks with PyKCS11 {getattr(PyKCS11, '__version__', '')}")


if __name__ == "__main__":
    main()
