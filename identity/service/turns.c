/*
 * Who is worked for next. A job asks the attestor and the keeper, and may hold keys and
 * certificates; each uid has a few running at once and the others wait in its own line. So a uid
 * that asks without end has a bounded number of questions before another one's single question,
 * and a bounded amount of memory.
 */
#include "service_priv.h"

void service_turn_take(struct service_turn *t, struct service_account *a,
                       void (*begin)(struct service_turn *t))
{
    *t = (struct service_turn){.account = a, .begin = begin};
    if (a->n_turns < SERVICE_UID_JOBS) {
        a->n_turns++;
        t->running = true;
        t->begin(t);
        return;
    }
    t->prev = a->last_waiting;
    if (t->prev != NULL) {
        t->prev->next = t;
    } else {
        a->first_waiting = t;
    }
    a->last_waiting = t;
}

static void unlink_waiting(struct service_turn *t)
{
    struct service_account *a = t->account;
    if (t->prev != NULL) {
        t->prev->next = t->next;
    } else {
        a->first_waiting = t->next;
    }
    if (t->next != NULL) {
        t->next->prev = t->prev;
    } else {
        a->last_waiting = t->prev;
    }
    t->prev = NULL;
    t->next = NULL;
}

void service_turn_give(struct service_turn *t)
{
    struct service_account *a = t->account;
    if (a == NULL) {
        return;
    }
    if (!t->running) {
        unlink_waiting(t);
        t->account = NULL;
        return;
    }
    t->running = false;
    t->account = NULL;
    struct service_turn *next = a->first_waiting;
    if (next == NULL) {
        a->n_turns--;
        return;
    }
    unlink_waiting(next);
    next->running = true;
    next->begin(next);
}
