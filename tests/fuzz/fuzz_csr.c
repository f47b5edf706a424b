/*
 * Property: whatever comes, x509_csr_check either refuses with a text and leaves the point alone,
 * or gives an uncompressed point that a certificate can be made for.
 */
#include <postern/x509.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t point[65] = {0};
    struct err err = ERR_INIT;
    if (x509_csr_check((struct str){(const char *)data, size}, point, &err) == -1) {
        CHECK(err.code != ERR_NONE && err.what[0] != '\0' && point[0] == 0);
        return 0;
    }
    CHECK(size > 0 && size <= 4096 && point[0] == 0x04);
    EVP_PKEY *key = x509_key_new(NULL);
    X509 *cert = NULL;
    struct x509_issue what = {.spiffe_id = STR_LIT("spiffe://example.org/fuzz"),
                              .point = point,
                              .not_before_s = 1767225600,
                              .not_after_s = 1767229200};
    CHECK(x509_issue(&what, NULL, key, &cert, &err) == 0);
    uint8_t again[65];
    CHECK(x509_key_point(X509_get0_pubkey(cert), again, NULL) == 0);
    CHECK(memcmp(point, again, sizeof(point)) == 0);
    X509_free(cert);
    EVP_PKEY_free(key);
    return 0;
}
