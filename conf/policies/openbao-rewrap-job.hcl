# The job that moves data keys from `kek` to `kek-2` (envelope key rewrap). The engine's rewrap ignores associated data,
# which every data key has: so it takes decryption with the old KEK and encryption with the new one, and no more.
path "transit/keys/kek" {
  capabilities = ["read"]
}
path "transit/decrypt/kek" {
  capabilities = ["update"]
}
path "transit/keys/kek-2" {
  capabilities = ["read"]
}
path "transit/encrypt/kek-2" {
  capabilities = ["update"]
}
