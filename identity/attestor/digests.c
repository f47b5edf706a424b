/* digests: executables being read, a piece at a time, and the connections that wait for it.
 *
 * A workload chooses what it runs, so it chooses what we read: files have a largest size, a few of
 * one uid or container are read at a time, and between two pieces everything else has its turn.
 * What came out is remembered by what tells one content from another without reading it (device,
 * inode, size and both times), so that a node's hundred copies of one image are read once. */
#include "attestor_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 256 * 1024, CACHE_SIZE = 1024 };

struct job {
    int fd; /* owned */
    uint64_t account;
    struct attest_exe_key key;
    struct attest_sha256 sha256;
};

struct attestor_digests {
    uint64_t max_bytes;
    struct job jobs[ATTESTOR_JOBS_MAX]; /* the first is worked on */
    size_t n_jobs;
    struct attestor_parked parked[ATTESTOR_PARKED_MAX]; /* in the order of arrival */
    size_t n_parked;
    struct attestor_digest cache[CACHE_SIZE]; /* by hash of the key; a later one replaces */
};

struct attestor_digests *attestor_digests_new(void)
{
    return mem_must_new(struct attestor_digests);
}

static void drop_jobs(struct attestor_digests *ds)
{
    for (size_t i = 0; i < ds->n_jobs; i++) {
        close(ds->jobs[i].fd);
    }
    ds->n_jobs = 0;
}

struct attestor_digests *attestor_digests_free(struct attestor_digests *ds)
{
    if (ds != NULL) {
        drop_jobs(ds);
        attestor_digests_drop_parked(ds);
        free(ds);
    }
    return NULL;
}

void attestor_digests_limit(struct attestor_digests *ds, uint64_t max_bytes)
{
    if (ds->max_bytes != max_bytes) {
        memset(ds->cache, 0, sizeof(ds->cache)); /* what was too large may not be now */
    }
    ds->max_bytes = max_bytes;
    if (max_bytes == 0) {
        drop_jobs(ds);
    }
}

bool attestor_digests_wanted(const struct attestor_digests *ds)
{
    return ds->max_bytes > 0;
}

/* --- the cache -------------------------------------------------------------------------------- */
static struct attestor_digest *cache_slot(struct attestor_digests *ds,
                                          const struct attest_exe_key *key)
{
    uint64_t h = key->ino * UINT64_C(0x9e3779b97f4a7c15);

    h ^= (key->dev ^ key->size ^ (uint64_t)key->ctime_s ^ key->ctime_ns) *
         UINT64_C(0xff51afd7ed558ccd);
    return &ds->cache[(h >> 32) % CACHE_SIZE];
}

static void cache_put(struct attestor_digests *ds, const struct attest_exe_key *key,
                      const uint8_t *sha256)
{
    struct attestor_digest *slot = cache_slot(ds, key);

    *slot = (struct attestor_digest){.known = true, .has = sha256 != NULL, .key = *key};
    if (sha256 != NULL) {
        memcpy(slot->sha256, sha256, AGENT_SHA256_SIZE);
    }
}

static struct job *find_job(struct attestor_digests *ds, const struct attest_exe_key *key)
{
    for (size_t i = 0; i < ds->n_jobs; i++) {
        if (attest_exe_same(&ds->jobs[i].key, key)) {
            return &ds->jobs[i];
        }
    }
    return NULL;
}

static bool may_add_job(const struct attestor_digests *ds, uint64_t account)
{
    size_t n_own = 0;

    for (size_t i = 0; i < ds->n_jobs; i++) {
        n_own += ds->jobs[i].account == account;
    }
    return ds->n_jobs < ATTESTOR_JOBS_MAX && n_own < ATTESTOR_ACCOUNT_JOBS_MAX;
}

enum attestor_digest_outcome attestor_digests_get(struct attestor_digests *ds,
                                                  const struct attest_process *p,
                                                  const struct attest_facts *facts,
                                                  struct attestor_digest *ret)
{
    const struct attestor_digest *slot = cache_slot(ds, &facts->exe);
    const char *why = "";
    struct job *job;
    int fd;

    if (facts->has_exe && slot->known && attest_exe_same(&slot->key, &facts->exe)) {
        *ret = *slot;
        /* Where the file lies is asked each time: numbers of devices are used again. */
        if (ret->has && !attest_exe_believable(p, facts, &why)) {
            ret->has = false;
        }
        return ATTESTOR_DIGEST_KNOWN;
    }
    if (facts->has_exe && find_job(ds, &facts->exe) != NULL) {
        return ATTESTOR_DIGEST_PENDING;
    }
    if (!may_add_job(ds, attestor_account(facts))) {
        return ATTESTOR_DIGEST_BUSY;
    }
    fd = attest_exe_open(p, facts, ds->max_bytes, &why);
    if (fd == -1) {
        *ret = (struct attestor_digest){.known = true, .key = facts->exe};
        return ATTESTOR_DIGEST_KNOWN;
    }
    job = &ds->jobs[ds->n_jobs++];
    *job = (struct job){.fd = fd, .account = attestor_account(facts), .key = facts->exe};
    attest_sha256_init(&job->sha256);
    return ATTESTOR_DIGEST_PENDING;
}

bool attestor_digests_busy(const struct attestor_digests *ds)
{
    return ds->n_jobs > 0;
}

bool attestor_digests_step(struct attestor_digests *ds)
{
    uint8_t sha256[AGENT_SHA256_SIZE];
    struct job *job = &ds->jobs[0];
    int r;

    if (ds->n_jobs == 0) {
        return ds->n_parked > 0;
    }
    r = attest_exe_hash(job->fd, &job->key, &job->sha256, PIECE, sha256);
    if (r == 1) {
        if (ds->n_jobs > 1) { /* the next one's turn: a small file does not wait for a large one */
            struct job first = *job;

            memmove(ds->jobs, ds->jobs + 1, (ds->n_jobs - 1) * sizeof(ds->jobs[0]));
            ds->jobs[ds->n_jobs - 1] = first;
        }
        return false;
    }
    cache_put(ds, &job->key, r == 0 ? sha256 : NULL);
    close(job->fd);
    memmove(ds->jobs, ds->jobs + 1, (ds->n_jobs - 1) * sizeof(ds->jobs[0]));
    ds->n_jobs--;
    return true;
}

/* --- who waits -------------------------------------------------------------------------------- */
bool attestor_digests_park(struct attestor_digests *ds, int sock, const struct attest_process *p,
                           const struct attest_facts *facts)
{
    uint64_t account = attestor_account(facts);
    size_t n_own = 0;

    for (size_t i = 0; i < ds->n_parked; i++) {
        n_own += ds->parked[i].account == account;
    }
    if (ds->n_parked == ATTESTOR_PARKED_MAX || n_own >= ATTESTOR_ACCOUNT_PARKED_MAX) {
        return false;
    }
    ds->parked[ds->n_parked++] = (struct attestor_parked){
        .sock = sock, .process = *p, .account = account, .key = facts->exe};
    return true;
}

bool attestor_digests_unpark(struct attestor_digests *ds, struct attestor_parked *ret)
{
    for (size_t i = 0; i < ds->n_parked; i++) {
        if (find_job(ds, &ds->parked[i].key) == NULL) {
            *ret = ds->parked[i];
            memmove(ds->parked + i, ds->parked + i + 1,
                    (ds->n_parked - i - 1) * sizeof(ds->parked[0]));
            ds->n_parked--;
            return true;
        }
    }
    return false;
}

void attestor_digests_drop_parked(struct attestor_digests *ds)
{
    for (size_t i = 0; i < ds->n_parked; i++) {
        close(ds->parked[i].sock);
        attest_process_close(&ds->parked[i].process);
    }
    ds->n_parked = 0;
}
