# A program that encrypts and decrypts under one KEK, `kek` in the engine `transit`, with `keys = kek` in kms.cnf.
# Never grant "create" on encrypt/: the engine would make a key that is missing, and a deleted KEK would seem to be back.
path "transit/keys/kek" {
  capabilities = ["read"]
}
path "transit/encrypt/kek" {
  capabilities = ["update"]
}
path "transit/decrypt/kek" {
  capabilities = ["update"]
}
# New data keys are made of the engine's random numbers and the machine's own.
path "transit/random/*" {
  capabilities = ["update"]
}
