<?php
// An encrypter with the shape of Laravel's (Illuminate\Encryption\Encrypter): AES-256-CBC with an HMAC over IV and
// value, and AES-256-GCM. The key is what .env says, and this code does not know that it is a key reference.
//     laravel.php ENV-FILE PLAIN      writes cbc.enc, cbc.iv, gcm.enc (data, then tag), gcm.iv

final class Encrypter
{
    public function __construct(private string $key, private string $cipher)
    {
        if (strlen($key) !== 32) {
            throw new RuntimeException('Unsupported cipher or incorrect key length.');
        }
    }

    private function aead(): bool
    {
        return $this->cipher === 'aes-256-gcm';
    }

    private function mac(string $iv, string $value): string
    {
        return hash_hmac('sha256', $iv . $value, $this->key);
    }

    public function encrypt(string $plain): string
    {
        $iv = random_bytes(openssl_cipher_iv_length($this->cipher));
        $value = $this->aead()
            ? openssl_encrypt($plain, $this->cipher, $this->key, 0, $iv, $tag)
            : openssl_encrypt($plain, $this->cipher, $this->key, 0, $iv);
        if ($value === false) {
            throw new RuntimeException('Could not encrypt the data: ' . openssl_error_string());
        }
        $iv = base64_encode($iv);
        return base64_encode(json_encode([
            'iv' => $iv,
            'value' => $value,
            'mac' => $this->aead() ? '' : $this->mac($iv, $value),
            'tag' => base64_encode($tag ?? ''),
        ]));
    }

    public function decrypt(string $payload): string
    {
        $payload = json_decode(base64_decode($payload), true);
        if (!$this->aead() && !hash_equals($this->mac($payload['iv'], $payload['value']), $payload['mac'])) {
            throw new RuntimeException('The MAC is invalid.');
        }
        $plain = openssl_decrypt($payload['value'], $this->cipher, $this->key, 0, base64_decode($payload['iv']),
            base64_decode($payload['tag']));
        if ($plain === false) {
            throw new RuntimeException('Could not decrypt the data: ' . openssl_error_string());
        }
        return $plain;
    }
}

[, $env, $file] = $argv;
$key = base64_decode(substr(trim(file_get_contents($env)), strlen('APP_KEY=base64:')));
$plain = file_get_contents($file);
foreach (['cbc', 'gcm'] as $mode) {
    $encrypter = new Encrypter($key, "aes-256-$mode");
    $sealed = $encrypter->encrypt($plain);
    if ($encrypter->decrypt($sealed) !== $plain) {
        throw new RuntimeException('not the same');
    }
    $parts = json_decode(base64_decode($sealed), true);
    file_put_contents("$mode.enc", base64_decode($parts['value']) . base64_decode($parts['tag']));
    file_put_contents("$mode.iv", bin2hex(base64_decode($parts['iv'])));
}
