/* pem: certificates and keys as text. Encoded here and not by OpenSSL's BIOs, so that a key's text
 * exists in secret memory alone. */
#include "rotate_priv.h"

#include <openssl/evp.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 48, LINE_CHARS = 64, FIRST_CAP = 4096 };

/* Into a larger region; the old one is wiped if it has to be. */
static void grow(struct rotate_bytes *b, size_t need)
{
    size_t cap = b->cap == 0 ? FIRST_CAP : b->cap;
    while (cap < need) {
        cap *= 2;
    }
    if (cap == b->cap) {
        return;
    }
    if (!b->secret) {
        b->data = mem_must_realloc(b->data, cap);
    } else {
        uint8_t *data = mem_secret_alloc(cap);
        POSTERN_ASSERT(data != NULL);
        if (b->len > 0) {
            memcpy(data, b->data, b->len);
        }
        mem_secret_free(b->data);
        b->data = data;
    }
    b->cap = cap;
}

void rotate_bytes_append(struct rotate_bytes *b, const void *p, size_t n)
{
    grow(b, b->len + n);
    if (n > 0) {
        memcpy(b->data + b->len, p, n);
        b->len += n;
    }
}

void rotate_bytes_reset(struct rotate_bytes *b)
{
    if (b->secret) {
        mem_secret_free(b->data);
    } else {
        free(b->data);
    }
    *b = (struct rotate_bytes){.secret = b->secret};
}

static void append_text(struct rotate_bytes *b, const char *text)
{
    rotate_bytes_append(b, text, strlen(text));
}

/* One PEM block. */
static void append_block(struct rotate_bytes *b, const char *label, const uint8_t *der, size_t len)
{
    uint8_t line[LINE_CHARS + 2];
    append_text(b, "-----BEGIN ");
    append_text(b, label);
    append_text(b, "-----\n");
    for (size_t at = 0; at < len; at += LINE_BYTES) {
        size_t n = len - at < LINE_BYTES ? len - at : LINE_BYTES;
        int chars = EVP_EncodeBlock(line, der + at, (int)n);
        line[chars] = '\n';
        rotate_bytes_append(b, line, (size_t)chars + 1);
    }
    mem_wipe(line, sizeof(line));
    append_text(b, "-----END ");
    append_text(b, label);
    append_text(b, "-----\n");
}

int rotate_pem_cert(struct rotate_bytes *b, X509 *cert, struct err *err)
{
    mem_autofree uint8_t *der = NULL;
    size_t len = 0;
    if (x509_to_der(cert, &der, &len, err) == -1) {
        return -1;
    }
    append_block(b, "CERTIFICATE", der, len);
    return 0;
}

/* The form of before PKCS#8, which only some kinds of keys have. */
static int append_sec1(struct rotate_bytes *b, EVP_PKEY *key, struct err *err)
{
    int id = EVP_PKEY_get_base_id(key);
    int len = i2d_PrivateKey(key, NULL);
    if ((id != EVP_PKEY_EC && id != EVP_PKEY_RSA) || len <= 0) {
        err_set(err, ERR_UNSUPPORTED, "a key of this kind has no form but PKCS#8");
        return err_advise(err, "set 'encoding: pkcs8'");
    }
    uint8_t *der = mem_secret_alloc((size_t)len);
    POSTERN_ASSERT(der != NULL);
    uint8_t *end = der;
    bool ok = i2d_PrivateKey(key, &end) == len;
    if (ok) {
        append_block(b, id == EVP_PKEY_EC ? "EC PRIVATE KEY" : "RSA PRIVATE KEY", der, (size_t)len);
    }
    mem_secret_free(der);
    return ok ? 0 : err_set(err, ERR_CRYPTO, "cannot write the key");
}

int rotate_pem_key(struct rotate_bytes *b, EVP_PKEY *key, enum conf_rotate_encoding encoding,
                   struct err *err)
{
    uint8_t *der = NULL;
    size_t len = 0;
    POSTERN_ASSERT(b->secret);
    if (encoding == CONF_ROTATE_SEC1) {
        return append_sec1(b, key, err);
    }
    if (x509_key_to_pkcs8(key, &der, &len, err) == -1) {
        return -1;
    }
    append_block(b, "PRIVATE KEY", der, len);
    mem_secret_free(der);
    return 0;
}
