/*
 * The record of pushed policies, and a stage as text. Property: what is read prints and reads again
 * as the same; a stage keeps every term, and means nobody that one of its kinds does not.
 */
#include <postern/rollout.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void try_stage(struct str text)
{
    struct rollout_stage *s = NULL;
    struct str id = STR_LIT("spiffe://t/ns/a/sa/b");
    const struct rollout_proxy p = {.ids = &id, .n_ids = 1};

    if (rollout_stage_parse(text, &s, NULL) == 0) {
        require(s->n_to + s->n_labels + (s->percent > 0 ? 1 : 0) > 0);
        require(str_eq(str_of(s->text), text));
        require(s->n_labels == 0 || !rollout_stage_means(s, &p));
        rollout_stage_free(s);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rollout one, two; /* too large for a stack */
    struct buf a = BUF_INIT(ROLLOUT_FILE_MAX), b = BUF_INIT(ROLLOUT_FILE_MAX);
    struct str text = {(const char *)data, size};

    try_stage(text);
    if (rollout_parse(text, &one, NULL) == 0) {
        require(rollout_print(&one, &a) && rollout_parse(buf_str(&a), &two, NULL) == 0 &&
                rollout_print(&two, &b) && str_eq(buf_str(&a), buf_str(&b)));
    }
    buf_reset(&a);
    buf_reset(&b);
    return 0;
}
