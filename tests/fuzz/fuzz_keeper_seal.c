/* A state file's outside. Property: what opens as plain is written again byte for byte, and what is
 * sealed never opens without its key. */
#include "seal.h"

#include <postern/mem.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str file = {(const char *)data, size};
    struct keeper_seal none = {.key = NULL}, other;
    struct keeper_seal_head head;
    uint8_t *payload = NULL, *again = NULL;
    size_t n = 0, len = 0;

    if (keeper_seal_read_head(file, &head, NULL) == -1) {
        require(keeper_seal_open(NULL, file, &payload, &n, NULL) == -1);
        return 0;
    }
    if (head.sealed) {
        other = (struct keeper_seal){.key = mem_secret_alloc(KEEPER_SEAL_KEY)};
        require(keeper_seal_open(NULL, file, &payload, &n, NULL) == -1);
        require(keeper_seal_open(&other, file, &payload, &n, NULL) == -1);
        keeper_seal_deinit(&other);
        return 0;
    }
    if (keeper_seal_open(NULL, file, &payload, &n, NULL) == -1) {
        return 0;
    }
    require(n == head.payload_len);
    require(keeper_seal_close(&none, (struct str){(char *)payload, n}, &again, &len, NULL) == 0);
    /* salt and nonce mean nothing in a plain file, and are under its checksum */
    require(len == size && memcmp(again + 44, data + 44, n) == 0);
    mem_secret_free(again);
    mem_secret_free(payload);
    return 0;
}
