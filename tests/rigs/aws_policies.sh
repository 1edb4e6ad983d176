#!/bin/bash
# The sample policies for AWS (conf/policies) let a program do its work and nothing else. The emulator enforces their
# actions; their resources and conditions, which it does not look at, our proxy in front of it.
set -u
# shellcheck source=tests/rigs/aws-rig.sh
. "$SOURCE_DIR/tests/rigs/aws-rig.sh"
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

trap 'client_kill; aws_rig_stop' EXIT
command -v jq >/dev/null || aws_rig_skip "no jq"
aws_rig_start "$SCRATCH/rig"
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
module=$BUILD_DIR/pkcs11/envelope-kms.so
dek=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f

# The sample, about the rig's keys: $1-REAL, and as much of it as the emulator understands: $1-EMULATED
prepare() {
    sed -e "s|arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab|$RIG_FIRST_ARN|" \
        -e "s|arn:aws:kms:eu-west-1:111122223333:key/5678ef01-12ab-34cd-56ef-1234567890ab|$RIG_SECOND_ARN|" \
        "$SOURCE_DIR/conf/policies/$1.json" >"$SCRATCH/$1.real" || fail "no sample $1"
    ! grep -q 'key/1234abcd\|key/5678ef01' "$SCRATCH/$1.real" || fail "$1 still names the sample's key"
    jq '.Statement[] |= (.Resource = "*" | del(.Condition, .Principal))' "$SCRATCH/$1.real" >"$SCRATCH/$1.emulated" ||
        fail "$1 is not JSON"
}

# A user with this policy; its access key becomes the environment's.
become() {
    prepare "$1"
    aws_rig_credentials ALLOWED
    "$aws_rig_py" - "$RIG_MOTO" "$RIG_REGION" "$1" "$SCRATCH/$1.emulated" >"$SCRATCH/user" <<'END' || fail "user $1"
import sys
import boto3
url, region, name, policy = sys.argv[1:]
iam = boto3.client("iam", region_name=region, endpoint_url=url)
iam.create_user(UserName=name)
iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=open(policy, encoding="utf-8").read())
key = iam.create_access_key(UserName=name)["AccessKey"]
print(f"RIG_USER_ID='{key['AccessKeyId']}'\nRIG_USER_SECRET='{key['SecretAccessKey']}'")
END
    # shellcheck disable=SC1091
    . "$SCRATCH/user"
    aws_rig_do policy "$(jq -n --arg id "$RIG_USER_ID" --slurpfile document "$SCRATCH/$1.real" \
        '{id: $id, document: $document[0]}')" >/dev/null || fail "policy $1"
    aws_rig_credentials USER
    with_config "$2"
}
with_config() {
    client_stop
    aws_rig_config "$ENVELOPE_KMS_CONFIG" "$@"
    client_start "$module" rig
}
denied="CKR_USER_NOT_LOGGED_IN *policy forbids it*"

echo "-- an application"
become aws-application "keys = alias/first"
says "encrypt alias/first financial/3 $dek" "ok *"
blob=${reply#ok }
says "decrypt alias/first financial/3 $blob" "ok $dek"
says "wrap alias/first tenant-7" "ok *"
says "random 32" "ok *"
says "dry-decrypt alias/first financial/3 $blob" "ok"
says "encrypt alias/first - $dek" "$denied" # nothing that is not bound
says "rewrap alias/first financial/3 alias/first financial/4 $blob" "$denied"
with_config "keys = alias/second"
says "encrypt alias/second financial/3 $dek" "$denied"

echo "-- the job that moves data keys to another KEK: it never sees one"
become aws-rewrap-job "keys = alias/first, alias/second"
says "rewrap alias/first financial/3 alias/second financial/3 $blob" "ok *"
moved=${reply#ok }
says "rewrap alias/first financial/3 alias/second - $blob" "$denied"
says "decrypt alias/first financial/3 $blob" "$denied"
says "decrypt alias/second financial/3 $moved" "$denied"
says "encrypt alias/first financial/3 $dek" "$denied"
says "random 32" "$denied"

echo "-- the key's policy in a customer's own account"
become aws-customer-key "keys = alias/first"
says "encrypt alias/first financial/3 $dek" "ok *"
says "decrypt alias/first financial/3 ${reply#ok }" "ok $dek"
says "rewrap alias/first financial/3 alias/first financial/4 $blob" "ok *"
says "encrypt alias/first - $dek" "$denied" # the customer's own statement gives no use of the key either
aws_rig_credentials ALLOWED
"$aws_rig_py" - "$RIG_MOTO" "$RIG_REGION" "$RIG_FIRST_ARN" "$SCRATCH/aws-customer-key.real" <<'END' || fail "put_key_policy"
import sys
import boto3
url, region, key, policy = sys.argv[1:]
kms = boto3.client("kms", region_name=region, endpoint_url=url)
kms.put_key_policy(KeyId=key.split("/")[-1], PolicyName="default", Policy=open(policy, encoding="utf-8").read())
END
client_stop
echo "passed: $checks checks"
