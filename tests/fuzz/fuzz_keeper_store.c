/*
 * The payload of a state file. Property: what is taken is written again byte for byte, and no
 * record of it is without an id, or larger than it may be.
 */
#include "store.h"

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
    struct keeper_store store;
    uint8_t *again = NULL;
    size_t len = 0;

    if (keeper_store_decode((struct str){(const char *)data, size}, &store, NULL) == -1) {
        return 0;
    }
    for (size_t i = 0; i < store.n; i++) {
        require(store.records[i].id[0] != 0 && store.records[i].key_len <= KEEPER_KEY_MAX &&
                store.records[i].cert_len <= KEEPER_CERT_MAX);
    }
    require(keeper_store_encode(&store, &again, &len, NULL) == 0);
    require(len == size && memcmp(again, data, size) == 0);
    mem_secret_free(again);
    keeper_store_deinit(&store);
    return 0;
}
