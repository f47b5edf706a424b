/* sequence: an output's way through its list of actions. One try is out at a time; what it means
 * when it comes back depends on whether the generation that it was for is still the newest. */
#include "actions_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BACKOFF_MAX_MS = 60000 };

static void next_action(struct sequence *s);

/* --- telling ---------------------------------------------------------------------------------- */
static const struct conf_after *action_of(const struct sequence *s, size_t i)
{
    return &s->output->after[i];
}

static void set_text(char ret[ACTIONS_TEXT_MAX + 1], const char *text, size_t len)
{
    len = len < ACTIONS_TEXT_MAX ? len : ACTIONS_TEXT_MAX;
    memcpy(ret, text, len);
    ret[len] = '\0';
}

/* The action's new state, noted and told. */
static void note(struct sequence *s, size_t i, enum actions_state state,
                 const struct actions_msg_done *m, uint64_t again_ms)
{
    struct actions_result *r = &s->results[i];
    struct actions_try t = {.output = s->output,
                            .action = action_of(s, i),
                            .index = i,
                            .generation = s->generation,
                            .attempt = s->attempt,
                            .state = state,
                            .again_ms = again_ms,
                            .exit_status = m != NULL ? m->exit_status : -1,
                            .http_status = m != NULL ? m->http_status : 0,
                            .text = r->text};

    r->state = state;
    r->generation = s->generation;
    r->at_s = os_wall_s();
    r->tries = s->attempt;
    set_text(r->text, m != NULL ? m->text : "", m != NULL ? m->text_len : 0);
    if (state != ACTIONS_STATE_WAITING) {
        s->n_by_state[state]++;
    }
    s->actions->events->on_try(s->actions->arg, &t);
}

static void go_idle(struct sequence *s)
{
    s->phase = SEQUENCE_IDLE;
    s->job = 0;
    s->actions->events->on_idle(s->actions->arg);
}

/* --- the question ----------------------------------------------------------------------------- */
static void note_verdict(struct sequence *s, enum actions_verdict verdict,
                         const struct actions_msg_done *m)
{
    struct actions_verified *v = &s->verified;

    *v = (struct actions_verified){.known = true,
                                   .verdict = verdict,
                                   .generation = s->generation,
                                   .at_s = os_wall_s(),
                                   .took_ms = os_now_ms() - s->changed_ms};
    if (m != NULL) {
        v->tries = m->tries;
        v->has_seen = m->has_seen != 0;
        memcpy(v->seen, m->seen, sizeof(v->seen));
        set_text(v->text, m->text, m->text_len);
    }
    s->n_by_verdict[verdict]++;
    s->actions->events->on_verified(s->actions->arg, s->output, v);
}

static void verify(struct sequence *s)
{
    struct actions_msg_verify m;

    if (!s->output->verify.present || !s->has_want) {
        go_idle(s);
        return;
    }
    actions_wire_init(&m, ACTIONS_VERIFY);
    m.job = ++s->actions->last_job;
    m.digest = s->actions->digest;
    m.output = (uint32_t)s->index;
    memcpy(m.want, s->want, sizeof(m.want));
    memcpy(m.old, s->old, sizeof(m.old));
    m.has_old = s->has_old ? 1 : 0;
    s->phase = SEQUENCE_VERIFYING;
    s->job = m.job;
    s->verified.running = true;
    if (!actions_tell(s->actions, &m)) {
        note_verdict(s, ACTIONS_UNREACHABLE, NULL);
        go_idle(s);
    }
}

/* --- tries ------------------------------------------------------------------------------------ */
static enum actions_state state_of(enum actions_outcome outcome)
{
    switch (outcome) {
    case ACTIONS_OK:
        return ACTIONS_STATE_DONE;
    case ACTIONS_TIMED_OUT:
        return ACTIONS_STATE_TIMED_OUT;
    case ACTIONS_REFUSED:
        return ACTIONS_STATE_REFUSED;
    case ACTIONS_NO_CHILD:
        return ACTIONS_STATE_SKIPPED;
    case ACTIONS_CANCELLED:
        return ACTIONS_STATE_SUPERSEDED;
    case ACTIONS_FAILED:
    case ACTIONS_N_OUTCOMES:
    default:
        return ACTIONS_STATE_FAILED;
    }
}

/* Doubled for each try, a quarter more or less. */
static uint64_t backoff_ms(const struct conf_after *a, uint32_t attempt)
{
    uint64_t ms = a->backoff_ms;

    for (uint32_t i = 1; i < attempt && ms < BACKOFF_MAX_MS; i++) {
        ms *= 2;
    }
    ms = ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
    return ms - ms / 4 + os_random_below(ms / 2 + 1);
}

static void after_try(struct sequence *s, enum actions_state state,
                      const struct actions_msg_done *m)
{
    const struct conf_after *a = action_of(s, s->action);

    if (actions_state_is_bad(state) && s->attempt < a->attempts) {
        uint64_t ms = backoff_ms(a, s->attempt);

        s->phase = SEQUENCE_WAITING;
        s->job = 0;
        loop_timer_arm(&s->timer, ms);
        note(s, s->action, ACTIONS_STATE_WAITING, m, ms);
        return;
    }
    note(s, s->action, state, m, 0);
    s->failed |= actions_state_is_bad(state) && a->if_failed == CONF_IF_FAILED_STOP;
    s->action++;
    s->attempt = 0;
    next_action(s);
}

static void try_action(struct sequence *s)
{
    struct actions_msg_run m;

    actions_wire_init(&m, ACTIONS_RUN);
    m.job = ++s->actions->last_job;
    m.generation = s->generation;
    m.digest = s->actions->digest;
    m.output = (uint32_t)s->index;
    m.action = (uint32_t)s->action;
    s->attempt++;
    s->phase = SEQUENCE_RUNNING;
    s->job = m.job;
    if (!actions_tell(s->actions, &m)) {
        struct actions_msg_done failed;
        static const char why[] = "the runner does not answer";

        actions_wire_init(&failed, ACTIONS_DONE);
        failed.exit_status = -1;
        memcpy(failed.text, why, sizeof(why) - 1);
        failed.text_len = sizeof(why) - 1;
        after_try(s, ACTIONS_STATE_FAILED, &failed);
    }
}

static void next_action(struct sequence *s)
{
    while (s->failed && s->action < s->output->n_after) {
        note(s, s->action, ACTIONS_STATE_SKIPPED, NULL, 0);
        s->action++;
    }
    if (s->action < s->output->n_after) {
        try_action(s);
    } else {
        verify(s);
    }
}

static void on_time(void *arg)
{
    struct sequence *s = arg;

    try_action(s);
}

/* --- changes ---------------------------------------------------------------------------------- */
/* What of the list is not done yet is for an older generation. */
static void supersede(struct sequence *s)
{
    for (; s->action < s->output->n_after; s->action++) {
        note(s, s->action, ACTIONS_STATE_SUPERSEDED, NULL, 0);
        s->attempt = 0;
    }
}

static void begin(struct sequence *s)
{
    if (s->has_want && s->next_has_want && memcmp(s->want, s->next_want, sizeof(s->want)) != 0) {
        memcpy(s->old, s->want, sizeof(s->old));
        s->has_old = true;
    }
    s->pending = false;
    s->generation = s->next_generation;
    s->changed_ms = s->next_changed_ms;
    s->has_want = s->next_has_want;
    memcpy(s->want, s->next_want, sizeof(s->want));
    s->action = 0;
    s->attempt = 0;
    s->failed = false;
    s->verified = (struct actions_verified){.known = false};
    for (size_t i = 0; i < s->output->n_after; i++) {
        s->results[i] = (struct actions_result){
            .state = ACTIONS_STATE_RUNNING, .generation = s->generation, .at_s = os_wall_s()};
    }
    next_action(s);
}

static bool is_question(const struct sequence *s)
{
    return s->phase == SEQUENCE_VERIFYING || action_of(s, s->action)->kind == CONF_AFTER_HTTP;
}

static void cancel(struct sequence *s)
{
    struct actions_msg_cancel m;

    actions_wire_init(&m, ACTIONS_CANCEL);
    m.job = s->job;
    /* If it is not taken, the question ends by its own time. */
    (void)actions_tell(s->actions, &m);
}

void sequence_change(struct sequence *s, uint64_t generation, const uint8_t *leaf)
{
    bool was_pending = s->pending;

    s->next_generation = generation;
    s->next_changed_ms = os_now_ms();
    s->next_has_want = leaf != NULL;
    if (leaf != NULL) {
        memcpy(s->next_want, leaf, sizeof(s->next_want));
    }
    s->pending = true;
    switch (s->phase) {
    case SEQUENCE_WAITING:
        loop_timer_disarm(&s->timer);
        supersede(s);
        begin(s);
        break;
    case SEQUENCE_IDLE:
        begin(s);
        break;
    case SEQUENCE_RUNNING:
    case SEQUENCE_VERIFYING:
        if (!was_pending && is_question(s)) {
            cancel(s);
        }
        break;
    }
}

/* It was for an older generation: what it came to is noted, and nothing follows from it. */
static void end_superseded(struct sequence *s, const struct actions_msg_done *m)
{
    if (s->phase == SEQUENCE_RUNNING) {
        note(s, s->action, state_of(m->outcome), m, 0);
        s->action++;
        s->attempt = 0;
        supersede(s);
    } else {
        s->verified.running = false;
    }
    begin(s);
}

void sequence_done(struct sequence *s, const struct actions_msg_done *m)
{
    if (s->pending) {
        end_superseded(s, m);
    } else if (s->phase == SEQUENCE_RUNNING) {
        after_try(s, state_of(m->outcome), m);
    } else {
        note_verdict(s, m->outcome == ACTIONS_OK ? m->verdict : ACTIONS_UNREACHABLE, m);
        go_idle(s);
    }
}

/* --- the object ------------------------------------------------------------------------------- */
void sequence_init(struct sequence *s, struct actions *a, size_t index)
{
    *s = (struct sequence){
        .actions = a, .output = &a->conf->outputs[index], .index = index, .phase = SEQUENCE_IDLE};
    s->results = mem_must_calloc(s->output->n_after + 1, sizeof(*s->results));
    loop_timer_init(&s->timer, a->loop, on_time, s);
}

void sequence_deinit(struct sequence *s)
{
    loop_timer_disarm(&s->timer);
    free(s->results);
    s->results = NULL;
}

void sequence_stop(struct sequence *s)
{
    if ((s->phase == SEQUENCE_RUNNING || s->phase == SEQUENCE_VERIFYING) && is_question(s)) {
        cancel(s);
    }
    loop_timer_disarm(&s->timer);
    s->phase = SEQUENCE_IDLE;
    s->job = 0;
    s->pending = false;
}
