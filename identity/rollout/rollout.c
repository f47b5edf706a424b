/* The set of pushed policies: what is in force, what was before. */
#include <postern/rollout.h>

#include <postern/mem.h>
#include <stdio.h>
#include <string.h>

bool rollout_text_ok(struct str s, size_t max)
{
    for (size_t i = 0; i < s.n; i++) {
        if (str_control(s, i) > 0) {
            return false;
        }
    }
    return s.n <= max;
}

const struct rollout_item *rollout_find(const struct rollout *r, uint64_t generation)
{
    for (size_t i = 0; i < r->n; i++) {
        if (r->items[i].generation == generation) {
            return &r->items[i];
        }
    }
    return NULL;
}

static bool is_needed(const struct rollout *r, uint64_t generation)
{
    const struct rollout_item *now = rollout_find(r, r->in_force);

    return generation == r->in_force || generation == r->staged || generation == r->last ||
           (now != NULL && generation == now->replaced);
}

/* The oldest that nothing needs. */
static uint64_t let_one_go(struct rollout *r)
{
    for (size_t i = 0; i < r->n; i++) {
        uint64_t generation = r->items[i].generation;

        if (!is_needed(r, generation)) {
            memmove(&r->items[i], &r->items[i + 1], (r->n - i - 1) * sizeof(r->items[0]));
            r->n--;
            return generation;
        }
    }
    return 0;
}

uint64_t rollout_add(struct rollout *r, const struct rollout_item *item, uint64_t *ret_gone)
{
    POSTERN_ASSERT(r->n <= ROLLOUT_KEPT);
    r->items[r->n] = *item;
    r->items[r->n].generation = ++r->last;
    r->items[r->n++].replaced = 0;
    *ret_gone = r->n > ROLLOUT_KEPT ? let_one_go(r) : 0;
    POSTERN_ASSERT(r->n <= ROLLOUT_KEPT);
    return r->last;
}

void rollout_put_in_force(struct rollout *r, uint64_t generation, bool again)
{
    for (size_t i = 0; i < r->n && !again; i++) {
        if (r->items[i].generation == generation && generation != r->in_force) {
            r->items[i].replaced = r->in_force;
        }
    }
    POSTERN_ASSERT(generation == 0 || rollout_find(r, generation) != NULL);
    r->in_force = generation;
    r->staged = 0;
    r->stage[0] = '\0';
}

void rollout_put_staged(struct rollout *r, uint64_t generation, const char *stage)
{
    POSTERN_ASSERT(rollout_find(r, generation) != NULL && strlen(stage) <= ROLLOUT_STAGE_MAX);
    r->staged = generation;
    (void)snprintf(r->stage, sizeof(r->stage), "%s", stage);
}

int rollout_before(const struct rollout *r, uint64_t *ret_generation, struct err *err)
{
    const struct rollout_item *now = rollout_find(r, r->in_force);

    if (r->staged != 0) {
        *ret_generation = r->in_force;
        return 0;
    }
    if (now == NULL) {
        err_set(err, ERR_USAGE, "the agent's file is in force: there is nothing to go back to");
        return err_advise(err, "`status` lists the generations that `rollback N` takes");
    }
    if (now->replaced != 0 && rollout_find(r, now->replaced) == NULL) {
        err_set(err, ERR_USAGE, "generation %llu, which was before, is not kept any more",
                (unsigned long long)now->replaced);
        return err_advise(err, "`rollback N` takes one that `status` lists, or `files`");
    }
    *ret_generation = now->replaced;
    return 0;
}
