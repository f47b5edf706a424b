#include <postern/key_heap.h>

#include <openssl/crypto.h>

enum {
    BASE = 256 * 1024, /* bytes for long-lived keys, and for what random numbers come from */
    /* The smallest piece, and what each connection is counted with: a key of P-384. Smaller ones,
     * for P-256 and X25519, would double the tables of bits, which libcrypto writes whole at the
     * start. */
    BLOCK = 64,
    LEG = BLOCK,
    /* From 3.6 on the private half of X25519MLKEM768 lies there too, for as long as a client's
     * connection lives. */
    LEG_HYBRID = 64 + 2048,
    BYTES_MAX = 1 << 30,
};
#define VERSION_3_6 0x30600000UL

void key_heap_open(size_t n_legs, struct key_heap_status *ret)
{
    size_t leg = OpenSSL_version_num() >= VERSION_3_6 ? LEG_HYBRID : LEG;
    size_t bytes = BASE;
    int rc;

    while (bytes < BYTES_MAX && (bytes - BASE) / leg < n_legs) { /* a power of two */
        bytes *= 2;
    }
    rc = CRYPTO_secure_malloc_init(bytes, BLOCK); /* 2: not locked */
    *ret = (struct key_heap_status){
        .bytes = rc > 0 ? bytes : 0, .legs = rc > 0 ? (bytes - BASE) / leg : 0, .locked = rc == 1};
}

size_t key_heap_used(void)
{
    return CRYPTO_secure_malloc_initialized() ? CRYPTO_secure_used() : 0;
}
