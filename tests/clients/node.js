// crypto.createCipheriv with a key from the configuration.   node.js KEY-HEX PLAIN
'use strict';
const crypto = require('crypto');
const fs = require('fs');

const key = Buffer.from(process.argv[2], 'hex');
const plain = fs.readFileSync(process.argv[3]);
for (const mode of ['gcm', 'cbc']) {
  const iv = crypto.randomBytes(mode === 'gcm' ? 12 : 16);
  const cipher = crypto.createCipheriv(`aes-256-${mode}`, key, iv);
  const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
  const tag = mode === 'gcm' ? cipher.getAuthTag() : Buffer.alloc(0);
  const decipher = crypto.createDecipheriv(`aes-256-${mode}`, key, iv);
  if (mode === 'gcm') decipher.setAuthTag(tag);
  const opened = Buffer.concat([decipher.update(sealed), decipher.final()]);
  if (!opened.equals(plain)) throw new Error('not the same');
  fs.writeFileSync(`${mode}.enc`, Buffer.concat([sealed, tag]));
  fs.writeFileSync(`${mode}.iv`, iv.toString('hex'));
}
