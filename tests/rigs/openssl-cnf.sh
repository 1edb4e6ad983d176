# shellcheck shell=bash
# To be sourced.
#
#   openssl_cnf CONFIG [references]   prints an openssl.cnf that has Envelope, with the configuration CONFIG, beside the
#                                     default provider; references: any program's keys may be key references

openssl_cnf() {
    local config=$1 references=${2:-}
    cat <<END
config_diagnostics = 1
openssl_conf = openssl_init
[openssl_init]
providers = providers_sect
${references:+alg_section = alg_sect
[alg_sect]
default_properties = ?provider=envelope}
[providers_sect]
default = default_sect
envelope = envelope_sect
[default_sect]
activate = 1
[envelope_sect]
module = $BUILD_DIR/provider/envelope.so
config = $config
${references:+key-references = all}
activate = 1
END
}
