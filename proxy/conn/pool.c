/*
 * Which session takes a connection on. One is shared by those that would have made the same: the
 * same certificate of ours under the same trust (a party is both, and changes with either), the
 * same identities expected, the same address. Each takes as many streams as the peer lets it and
 * 100 at most; then there is another. One whose certificate or trust is out of date takes no new
 * streams and ends with its last.
 */
#include "conn_priv.h"

#include <stdlib.h>

static bool same_identities(const struct route *a, const struct route *b)
{
    bool same = a->n_identities == b->n_identities;
    for (size_t i = 0; same && i < a->n_identities; i++) {
        same = str_eq(a->identities[i], b->identities[i]);
    }
    return same;
}

static struct conn_carrier **bucket(struct conn_worker *w, const struct net_addr *a)
{
    const uint8_t *p = (const uint8_t *)&a->sa;
    uint32_t h = 2166136261U; /* FNV-1a; who can choose the addresses is the mesh map */
    for (socklen_t i = 0; i < a->len; i++) {
        h = (h ^ p[i]) * 16777619U;
    }
    return &w->pool[h % CONN_POOL_BUCKETS];
}

/* Own copies: the mesh map that they come from may be gone before the session is. */
static bool copy_route(const struct route *from, struct route *to)
{
    size_t bytes = from->n_identities * sizeof(struct str);
    for (size_t i = 0; i < from->n_identities; i++) {
        bytes += from->identities[i].n;
    }
    struct str *ids = (struct str *)malloc(bytes > 0 ? bytes : 1);
    if (ids == NULL) {
        return false;
    }
    char *text = (char *)(ids + from->n_identities);
    for (size_t i = 0; i < from->n_identities; i++) {
        ids[i] = (struct str){text, from->identities[i].n};
        memcpy(text, from->identities[i].p, from->identities[i].n);
        text += from->identities[i].n;
    }
    *to = (struct route){
        .transport = CONF_TRANSPORT_HBONE, .identities = ids, .n_identities = from->n_identities};
    return true;
}

void pool_route_deinit(struct route *r)
{
    free((void *)(uintptr_t)r->identities);
    r->identities = NULL;
}

void pool_remove(struct conn_carrier *k)
{
    if (!k->pooled) {
        return;
    }
    struct conn_worker *w = k->conn->worker;
    k->pooled = false;
    *(k->pool_prev != NULL ? &k->pool_prev->pool_next : bucket(w, &k->conn->upstream)) =
        k->pool_next;
    if (k->pool_next != NULL) {
        k->pool_next->pool_prev = k->pool_prev;
    }
}

static void add(struct conn_carrier *k)
{
    struct conn_carrier **head = bucket(k->conn->worker, &k->conn->upstream);
    k->pooled = true;
    k->pool_prev = NULL;
    k->pool_next = *head;
    if (*head != NULL) {
        (*head)->pool_prev = k;
    }
    *head = k;
}

bool pool_is_current(const struct conn_carrier *k)
{
    const struct conn *c = k->conn;
    return k->pooled && k->party == conn_party(c, c->worker->current->snapshot, true) &&
           (k->hbone == NULL || hbone_session_usable(k->hbone));
}

static bool has_room(const struct conn_carrier *k)
{
    return k->conn->state == CONN_SESSION ? hbone_session_room(k->hbone) > 0
                                          : k->n_users < HBONE_CLIENT_STREAMS;
}

static struct conn_carrier *candidate(struct conn *c, const struct net_addr *to)
{
    const struct tls_party *party = conn_party(c, conn_snapshot(c), true);
    for (struct conn_carrier *k = *bucket(c->worker, to); k != NULL; k = k->pool_next) {
        if (k->party == party && net_addr_equal(&k->conn->upstream, to) &&
            same_identities(&k->route, conn_route(c)) && has_room(k)) {
            return k;
        }
    }
    return NULL;
}

/* One that a change concerns, and that was not looked at yet, is looked at now: whoever is
 * quarantined gets no stream until its turn comes. */
static struct conn_carrier *find(struct conn *c, const struct net_addr *to)
{
    struct conn_carrier *k;
    while ((k = candidate(c, to)) != NULL && !conn_catch_up(k->conn)) {
        POSTERN_ASSERT(!k->pooled);
    }
    return k;
}

/* A session to be; NULL: no memory. */
static struct conn_carrier *make(struct conn *c, const struct net_addr *to)
{
    struct conn *own = conn_new_session(c->worker, c->listener);
    struct conn_carrier *k = own != NULL ? conn_carrier_new(own) : NULL;
    if (k == NULL || !copy_route(conn_route(c), &k->route)) {
        if (own != NULL) {
            conn_close(own, CONN_CLOSE_NO_MEMORY);
        }
        return NULL;
    }
    own->original = own->upstream = *to;
    own->transport = CONF_TRANSPORT_HBONE;
    own->route = &k->route;
    k->route.service = NULL;
    k->party = tls_party_ref(conn_party(c, conn_snapshot(c), true));
    add(k);
    return k;
}

void pool_take(struct conn *c)
{
    if (!conn_catch_up(c)) { /* so may be the one that asks */
        return;
    }
    struct net_addr to = conn_balance_address(c);
    net_addr_set_port(&to, conn_route(c)->hbone_port);
    c->upstream = to;
    if (c->relay && snapshot_is_own_port(conn_snapshot(c)->files, &to, false)) {
        conn_onward_failed(c, CONN_CLOSE_LOOP); /* it would carry itself, again and again */
        return;
    }
    struct conn_carrier *k = find(c, &to);
    if (k != NULL) {
        conn_ride_begin(c, conn_ride_on(c), k);
        if (k->conn->state == CONN_SESSION) {
            conn_opening_begin(c);
        }
        return;
    }
    k = make(c, &to);
    if (k == NULL) {
        conn_onward_failed(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    conn_ride_begin(c, conn_ride_on(c), k);
    conn_outbound_dial(k->conn); /* may end at once, and c with it */
}
