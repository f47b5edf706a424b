/* A Snapshot message, as an agent that was taken over could send it: it is taken whole, with what a
 * worker needs to decide, or there is an error and nothing. */
#include <assert.h>
#include <postern/state_client.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct snapshot_state *s = NULL;
    struct err err = ERR_INIT;
    uint64_t generation = 0;
    int r = state_message_read((struct str){(const char *)data, size}, NULL, &s, &generation, &err);
    assert((r == 0) == (s != NULL) && (r == 0) == (err.code == ERR_NONE));
    if (s != NULL) {
        assert(s->generation == generation && generation != 0);
        assert(s->has_policy == (s->policy != NULL) && s->has_mesh == (s->routes != NULL));
        assert(s->deny != NULL && !deny_set_has(s->deny, STR_NONE, STR_NONE));
    }
    snapshot_state_unref(s);
    return 0;
}
