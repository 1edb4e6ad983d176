"""An AWS emulator (moto) for the tests: signatures are verified, policies enforced.

usage: aws_moto.py READY-FILE

Listens on a free loopback port, makes a user with keys, a user without rights and a role, switches verification on, and
then writes what a test needs to know to READY-FILE as shell assignments. Runs until it is killed.
"""

import json
import os
import sys
import threading
import urllib.request

os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

import boto3  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

REGION = "eu-west-1"
ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}


def client(service, url):
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id="setup",
        aws_secret_access_key="setup",
    )


def make_users(url):
    iam = client("iam", url)
    facts = {}
    for name, policy in (("ALLOWED", ALLOW), ("DENIED", None)):
        iam.create_user(UserName=name)
        if policy:
            iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        facts[f"RIG_{name}_ID"] = key["AccessKeyId"]
        facts[f"RIG_{name}_SECRET"] = key["SecretAccessKey"]
    role = iam.create_role(RoleName="rig", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.put_role_policy(RoleName="rig", PolicyName="all", PolicyDocument=json.dumps(ALLOW))
    facts["RIG_ROLE_ARN"] = role["Role"]["Arn"]
    return facts


def make_keys(url):
    kms = client("kms", url)
    facts = {}
    for alias, spec in (("first", "SYMMETRIC_DEFAULT"), ("second", "SYMMETRIC_DEFAULT"), ("rsa", "RSA_2048")):
        arn = kms.create_key(KeySpec=spec, KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["Arn"]
        kms.create_alias(AliasName=f"alias/{alias}", TargetKeyId=arn)
        facts[f"RIG_{alias.upper()}_ARN"] = arn
    kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")  # not for us: must not be shown
    return facts


def verify_signatures(url):
    request = urllib.request.Request(
        url + "/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"}
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        reply.read()


def main():
    ready = sys.argv[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    facts = {"RIG_MOTO": url, "RIG_REGION": REGION, **make_users(url), **make_keys(url)}
    verify_signatures(url)
    with open(ready + ".new", "w", encoding="ascii") as file:
        file.writelines(f"{name}='{value}'\n" for name, value in facts.items())
    os.rename(ready + ".new", ready)
    threading.Event().wait()


if __name__ == "__main__":
    main()
