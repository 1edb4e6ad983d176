# An encryptor with the shape of Rails' (ActiveSupport::MessageEncryptor): AES-256-GCM, or AES-256-CBC with a signature
# under a secret of its own. The key is given as it is; this code does not know that it is a key reference.
#     message_encryptor.rb KEY-FILE PLAIN      writes gcm.enc (data, then tag), gcm.iv, cbc.enc, cbc.iv
require 'openssl'
require 'base64'

class MessageEncryptor
  def initialize(secret, cipher)
    @secret = secret
    @cipher = cipher
  end

  def aead?
    @cipher.end_with?('gcm')
  end

  def encrypt(plain)
    cipher = OpenSSL::Cipher.new(@cipher)
    cipher.encrypt
    cipher.key = @secret
    iv = cipher.random_iv
    cipher.auth_data = '' if aead?
    parts = [cipher.update(plain) + cipher.final, iv]
    parts << cipher.auth_tag if aead?
    parts.map { |part| Base64.strict_encode64(part) }.join('--')
  end

  def decrypt(message)
    sealed, iv, tag = message.split('--').map { |part| Base64.strict_decode64(part) }
    cipher = OpenSSL::Cipher.new(@cipher)
    cipher.decrypt
    cipher.key = @secret
    cipher.iv = iv
    if aead?
      cipher.auth_tag = tag
      cipher.auth_data = ''
    end
    cipher.update(sealed) + cipher.final
  end
end

secret = eval(File.read(ARGV[0])) # what `envelope reference --format ruby` printed
plain = File.binread(ARGV[1])
%w[gcm cbc].each do |mode|
  encryptor = MessageEncryptor.new(secret, "aes-256-#{mode}")
  message = encryptor.encrypt(plain)
  raise 'not the same' unless encryptor.decrypt(message) == plain

  sealed, iv, tag = message.split('--').map { |part| Base64.strict_decode64(part) }
  File.binwrite("#{mode}.enc", sealed + tag.to_s)
  File.write("#{mode}.iv", iv.unpack1('H*'))
end
