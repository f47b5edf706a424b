#include "seal.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <string.h>

/* scrypt: 128 * r * N bytes are 4 MiB, so that all of it fits into what everybody may lock into
 * memory (8 MiB, of which the keeper's heap takes a part); p makes up for it in time. Files of
 * other numbers are refused: who writes the file does not choose what opening it costs. */
enum { LOG2_N = 12, SCRYPT_R = 8, SCRYPT_P = 20, SCRYPT_MEM_MAX = 8 << 20 };

static const char MAGIC[8] = {'P', 'S', 'T', 'N', 'C', 'A', '0', '1'};

enum {
    KIND_PLAIN = 0,
    KIND_SCRYPT = 1,
    AT_KIND = 8,
    AT_SALT = 12,
    AT_NONCE = AT_SALT + KEEPER_SEAL_SALT,
    NONCE = 12,
    AT_LENGTH = AT_NONCE + NONCE,
    HEAD = AT_LENGTH + 4,
    TAG = 16,
    CHECKSUM = 32,
};

static int crypto_fail(struct err *err, const char *what)
{
    ERR_clear_error();
    return err_set(err, ERR_CRYPTO, "%s", what);
}

/* --- the key ---------------------------------------------------------------------------------- */
static bool scrypt(struct str passphrase, uint8_t salt[KEEPER_SEAL_SALT], uint8_t *ret)
{
    uint64_t n = UINT64_C(1) << LOG2_N, mem_max = SCRYPT_MEM_MAX;
    uint32_t r = SCRYPT_R, p = SCRYPT_P;
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "SCRYPT", NULL);
    EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, (void *)(uintptr_t)passphrase.p,
                                          passphrase.n),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt, KEEPER_SEAL_SALT),
        OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
        OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
        OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
        OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &mem_max),
        OSSL_PARAM_construct_end()};
    bool ok = ctx != NULL && EVP_KDF_derive(ctx, ret, KEEPER_SEAL_KEY, params) == 1;

    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok;
}

int keeper_seal_derive(struct str passphrase, const uint8_t *salt, struct keeper_seal *ret,
                       struct err *err)
{
    struct keeper_seal seal = {.key = NULL};

    if (passphrase.n == 0 || passphrase.n > KEEPER_PASSPHRASE_MAX) {
        err_set(err, ERR_CONFIG, "the passphrase has %zu bytes", passphrase.n);
        err_expected(err, "1 to %d", KEEPER_PASSPHRASE_MAX);
        return err_advise(err, "use 32 random bytes: head -c 32 /dev/urandom | base64");
    }
    if (salt != NULL) {
        memcpy(seal.salt, salt, sizeof(seal.salt));
    } else {
        os_random(seal.salt, sizeof(seal.salt));
    }
    seal.key = mem_secret_alloc(KEEPER_SEAL_KEY);
    if (seal.key == NULL) {
        return err_set(err, ERR_LIMIT, "no memory for a key");
    }
    if (!scrypt(passphrase, seal.salt, seal.key)) {
        keeper_seal_deinit(&seal);
        return crypto_fail(err, "no key can be made from the passphrase (scrypt)");
    }
    *ret = seal;
    return 0;
}

void keeper_seal_deinit(struct keeper_seal *seal)
{
    mem_secret_free(seal->key);
    *seal = (struct keeper_seal){.key = NULL};
}

/* --- writing ---------------------------------------------------------------------------------- */
static bool encrypt_payload(const struct keeper_seal *seal, uint8_t *file, struct str payload)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0, last = 0;
    bool ok = ctx != NULL &&
              EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, seal->key, file + AT_NONCE) == 1 &&
              EVP_EncryptUpdate(ctx, NULL, &n, file, HEAD) == 1 &&
              EVP_EncryptUpdate(ctx, file + HEAD, &n, (const unsigned char *)payload.p,
                                (int)payload.n) == 1 &&
              (size_t)n == payload.n && EVP_EncryptFinal_ex(ctx, file + HEAD + n, &last) == 1 &&
              last == 0 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, file + HEAD + n) == 1;

    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

static void put_head(const struct keeper_seal *seal, uint8_t *file, size_t payload_len)
{
    memcpy(file, MAGIC, sizeof(MAGIC));
    for (size_t i = 0; i < 4; i++) {
        file[AT_LENGTH + i] = (uint8_t)(payload_len >> (8 * (3 - i)));
    }
    if (seal->key == NULL) {
        return; /* the region is zeroed */
    }
    file[AT_KIND] = KIND_SCRYPT;
    file[AT_KIND + 1] = LOG2_N;
    file[AT_KIND + 2] = SCRYPT_R;
    file[AT_KIND + 3] = SCRYPT_P;
    memcpy(file + AT_SALT, seal->salt, sizeof(seal->salt));
    os_random(file + AT_NONCE, NONCE);
}

int keeper_seal_close(const struct keeper_seal *seal, struct str payload, uint8_t **ret,
                      size_t *ret_len, struct err *err)
{
    size_t len = HEAD + payload.n + (seal->key != NULL ? TAG : CHECKSUM);
    uint8_t *file;
    bool ok;

    if (len > KEEPER_SEAL_FILE_MAX) {
        return err_set(err, ERR_LIMIT, "the authorities need %zu bytes", len);
    }
    file = mem_secret_alloc(len);
    if (file == NULL) {
        return err_set(err, ERR_LIMIT, "no memory for the authorities");
    }
    put_head(seal, file, payload.n);
    if (seal->key != NULL) {
        ok = encrypt_payload(seal, file, payload);
    } else {
        memcpy(file + HEAD, payload.p, payload.n);
        ok = EVP_Digest(file, HEAD + payload.n, file + HEAD + payload.n, NULL, EVP_sha256(),
                        NULL) == 1;
    }
    if (!ok) {
        mem_secret_free(file);
        return crypto_fail(err, "the authorities cannot be sealed");
    }
    *ret = file;
    *ret_len = len;
    return 0;
}

/* --- reading ---------------------------------------------------------------------------------- */
static int not_ours(struct err *err, const char *what)
{
    err_set(err, ERR_CONFIG, "%s", what);
    err_expected(err, "what this agent, or one of the same release, wrote");
    return err_advise(err, "restore it from a backup; docs/operations.md has the procedure for a "
                           "root that is lost");
}

int keeper_seal_read_head(struct str file, struct keeper_seal_head *ret, struct err *err)
{
    const uint8_t *p = (const uint8_t *)file.p;
    struct keeper_seal_head head = {.sealed = false};
    size_t end;

    if (file.n < HEAD || memcmp(p, MAGIC, sizeof(MAGIC)) != 0) {
        return not_ours(err, "this is no state file of a keeper");
    }
    if (p[AT_KIND] == KIND_SCRYPT) {
        if (p[AT_KIND + 1] != LOG2_N || p[AT_KIND + 2] != SCRYPT_R || p[AT_KIND + 3] != SCRYPT_P) {
            return not_ours(err, "the state file is sealed in an unknown way");
        }
        head.sealed = true;
        memcpy(head.salt, p + AT_SALT, sizeof(head.salt));
    } else if (p[AT_KIND] != KIND_PLAIN) {
        return not_ours(err, "the state file is of an unknown kind");
    }
    for (size_t i = 0; i < 4; i++) {
        head.payload_len = head.payload_len << 8 | p[AT_LENGTH + i];
    }
    end = head.sealed ? TAG : CHECKSUM;
    if (file.n > KEEPER_SEAL_FILE_MAX || head.payload_len > KEEPER_SEAL_FILE_MAX ||
        file.n - HEAD != head.payload_len + end) {
        return not_ours(err, "the state file is cut, or longer than it says");
    }
    *ret = head;
    return 0;
}

static bool decrypt_payload(const struct keeper_seal *seal, const uint8_t *file, size_t len,
                            uint8_t *ret)
{
    uint8_t tag[TAG];
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0, last = 0;
    bool ok;

    memcpy(tag, file + HEAD + len, sizeof(tag));
    ok = ctx != NULL &&
         EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, seal->key, file + AT_NONCE) == 1 &&
         EVP_DecryptUpdate(ctx, NULL, &n, file, HEAD) == 1 &&
         EVP_DecryptUpdate(ctx, ret, &n, file + HEAD, (int)len) == 1 && (size_t)n == len &&
         EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG, tag) == 1 &&
         EVP_DecryptFinal_ex(ctx, ret + n, &last) == 1 && last == 0;
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

static bool checksum_ok(const uint8_t *file, size_t len)
{
    uint8_t sum[EVP_MAX_MD_SIZE];

    return EVP_Digest(file, HEAD + len, sum, NULL, EVP_sha256(), NULL) == 1 &&
           memcmp(sum, file + HEAD + len, CHECKSUM) == 0;
}

int keeper_seal_open(const struct keeper_seal *seal, struct str file, uint8_t **ret,
                     size_t *ret_len, struct err *err)
{
    const uint8_t *p = (const uint8_t *)file.p;
    struct keeper_seal_head head = {.sealed = false};
    uint8_t *payload;

    if (keeper_seal_read_head(file, &head, err) == -1) {
        return -1;
    }
    if (head.sealed != (seal != NULL && seal->key != NULL)) {
        return err_set(err, ERR_CONFIG, "the state file is %s", head.sealed ? "sealed" : "plain");
    }
    payload = mem_secret_alloc(head.payload_len > 0 ? head.payload_len : 1);
    if (payload == NULL) {
        return err_set(err, ERR_LIMIT, "no memory for the authorities");
    }
    if (head.sealed && !decrypt_payload(seal, p, head.payload_len, payload)) {
        mem_secret_free(payload);
        ERR_clear_error();
        err_set(err, ERR_CONFIG,
                "the state file does not open: the passphrase is another one, or "
                "the file was changed");
        return err_advise(err, "give the passphrase that it was sealed with (old_passphrase_file, "
                               "if it is to be exchanged), or restore it from a backup");
    }
    if (!head.sealed) {
        if (!checksum_ok(p, head.payload_len)) {
            mem_secret_free(payload);
            return not_ours(err, "the state file is torn, or was changed");
        }
        memcpy(payload, p + HEAD, head.payload_len);
    }
    *ret = payload;
    *ret_len = head.payload_len;
    return 0;
}
