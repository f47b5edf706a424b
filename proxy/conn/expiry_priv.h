/*
 * When connections end because their certificates do: the clock, the plan and the heap, which know
 * nothing of connections. docs/lifetimes.md.
 */
#ifndef POSTERN_CONN_EXPIRY_PRIV_H
#define POSTERN_CONN_EXPIRY_PRIV_H

#include <postern/conf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EXPIRY_TICK_MS = 1000,     /* how often the heap is looked at */
    EXPIRY_BELIEVE_MS = 60000, /* how long a set clock has to stand */
    EXPIRY_JITTER_S = 2,       /* what two clocks of whole seconds may differ by */
};

/* --- the clock --------------------------------------------------------------------------------
 * The offset of the wall clock to the boot clock, as it is believed. */
struct expiry_clock {
    bool running;
    int64_t offset_s;
    int64_t seen_s;    /* another one, which has stood since then */
    uint64_t since_ms; /* 0: none */
};
/* True: another offset is believed from now on. */
bool expiry_clock_tick(struct expiry_clock *k, uint64_t boot_ms, int64_t wall_s);
/* The boot clock's time at which the wall clock, as it is believed, will say wall_s; 0: it has. */
uint64_t expiry_clock_boot_ms(const struct expiry_clock *k, int64_t wall_s);

/* --- the plan --------------------------------------------------------------------------------- */
struct expiry_plan {
    uint64_t drain_ms, end_ms; /* from now */
};
/* left_ms: what is left of the certificates' time. chance: uniform over all its values. */
struct expiry_plan expiry_plan(const struct conf_expiry *conf, uint64_t left_ms, uint32_t chance);

/* --- the heap --------------------------------------------------------------------------------- */
/* Embedded in its owner; zeroed. */
struct expiry {
    int64_t not_after_s; /* the earliest of its certificates, by the wall clock; 0: none */
    uint64_t ends_ms;    /* on the boot clock */
    uint32_t at;         /* place in the heap, from 1; 0: not there */
    bool own;            /* it is the own certificate's */
    bool draining;
};
struct expiry_item {
    uint64_t due_ms;
    struct expiry *e;
};
struct expiry_heap {
    struct expiry_item *items; /* owned */
    size_t n, cap;
};
/* Adds it, or moves it. */
void expiry_heap_set(struct expiry_heap *h, struct expiry *e, uint64_t due_ms);
void expiry_heap_remove(struct expiry_heap *h, struct expiry *e);
/* The first one that is due, taken out; NULL: none is. */
struct expiry *expiry_heap_take(struct expiry_heap *h, uint64_t now_ms);
/* A clock that is believed now says other ends: none becomes later. */
void expiry_heap_believe(struct expiry_heap *h, const struct expiry_clock *k);
void expiry_heap_deinit(struct expiry_heap *h);

#endif
