/* The journal's file (docs/journal.md): one write a line, a signed head at most once a second, a
 * disk that is full, files that follow each other. What stands in the lines: journal_events.c. */
#include "keeper_priv.h"

#include <errno.h>
#include <openssl/evp.h>
#include <postern/journal.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TAIL_MAX = 4 * JOURNAL_LINE_MAX, /* read of an old file to go on from */
    HEAD_SOON_MS = 100,              /* after a line; lines of one burst share a head */
    HEAD_EVERY_MS = 1000,
    NEXT_AGAIN_MS = 60000, /* a next file that did not come is asked for again */
    LOG_AGAIN_MS = 60000,  /* how often a failing disk is worth a line */
};

/* --- hashes and signatures -------------------------------------------------------------------- */
/* Of a part of the file, piece by piece: the file may hold anything. */
static bool hash_region(int fd, uint64_t from, uint64_t n, uint8_t ret[JOURNAL_HASH_SIZE])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t piece[4096];
    unsigned len = JOURNAL_HASH_SIZE;
    bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;

    while (ok && n > 0) {
        ssize_t got = pread(fd, piece, n < sizeof(piece) ? n : sizeof(piece), (off_t)from);

        ok = got > 0 && EVP_DigestUpdate(ctx, piece, (size_t)got) == 1;
        from += ok ? (uint64_t)got : 0;
        n -= ok ? (uint64_t)got : 0;
    }
    ok = ok && EVP_DigestFinal_ex(ctx, ret, &len) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* The head's statement, by the key that signs leaves. A certificate is DER and begins with 0x30;
 * this begins with words, so neither can be taken for the other. */
static bool sign_head(EVP_PKEY *key, struct str line, uint8_t *ret, size_t *ret_len)
{
    char text[sizeof(JOURNAL_HEAD_PREFIX) + 512];
    const size_t prefix = sizeof(JOURNAL_HEAD_PREFIX) - 1;
    bool own_digest = EVP_PKEY_is_a(key, "ED25519") == 1 || EVP_PKEY_is_a(key, "ED448") == 1;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && line.n <= sizeof(text) - prefix;

    if (ok) {
        memcpy(text, JOURNAL_HEAD_PREFIX, prefix);
        memcpy(text + prefix, line.p, line.n);
        ok = EVP_DigestSignInit_ex(ctx, NULL, own_digest ? NULL : "SHA256", NULL, NULL, key,
                                   NULL) == 1 &&
             EVP_DigestSign(ctx, ret, ret_len, (const uint8_t *)text, prefix + line.n) == 1;
    }
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* --- writing ---------------------------------------------------------------------------------- */
static void failing(struct keeper *k, int error)
{
    struct keeper_journal *j = &k->journal;
    uint64_t now_ms = keeper_clock_now_ms(&k->clock);
    struct err err = ERR_INIT;

    if (!j->failing) {
        j->failing = true;
        k->changed_pending = true;
    } else if (now_ms - j->logged_ms < LOG_AGAIN_MS) {
        return;
    }
    j->logged_ms = now_ms;
    errno = error;
    err_sys(&err,
            "the journal cannot be written (%llu lines lost): certificates are issued that "
            "it does not have",
            (unsigned long long)j->n_lost);
    err_where(&err, "journal file %llu", (unsigned long long)j->file);
    err_advise(&err, "make room on the file system of the state directory");
    log_failure(k->log, LOG_ERROR, "journal_failing", &err);
}

static void working(struct keeper *k)
{
    struct keeper_journal *j = &k->journal;

    if (j->failing) {
        j->failing = false;
        k->changed_pending = true;
        log_msg(k->log, LOG_WARN, "journal_working",
                "the journal can be written again; %llu lines were lost",
                (unsigned long long)j->n_lost);
    }
}

/* One write. Whatever comes of a line that was cut short stays in the file; the next line that
 * gets through begins behind a newline and says so. */
static bool write_line(struct keeper *k, char *space, size_t len)
{
    struct keeper_journal *j = &k->journal;
    bool newline = j->torn > 0;
    ssize_t n;

    space[0] = '\n'; /* the byte before the line is kept free for it */
    space[1 + len] = '\n';
    n = write(j->fd, newline ? space : space + 1, len + 1 + newline);
    if (n == (ssize_t)(len + 1 + newline)) {
        j->size += (uint64_t)n;
        j->torn = 0;
        journal_hash((struct str){space + 1, len}, j->prev);
        j->seq++;
        working(k);
        return true;
    }
    if (n > 0) {
        j->size += (uint64_t)n;
        j->torn += (uint64_t)n;
        errno = ENOSPC;
    }
    failing(k, errno);
    return false;
}

static void begin_fields(struct keeper *k, struct keeper_journal_line *l, const char *event)
{
    char when[32];

    os_time_text(keeper_clock_wall_s(&k->clock), when, sizeof(when));
    jsonl_begin(&l->w, l->space + 1, sizeof(l->space) - 2);
    jsonl_put_uint(&l->w, "seq", k->journal.seq + 1);
    jsonl_put_text(&l->w, "time", str_of(when), sizeof(when));
    jsonl_put_hex(&l->w, "prev", k->journal.prev, sizeof(k->journal.prev));
    jsonl_put_text(&l->w, "event", str_of(event), 64);
}

static void put_torn(struct keeper_journal *j, struct jsonl_writer *w)
{
    uint8_t hash[JOURNAL_HASH_SIZE];

    if (j->torn > 0 && hash_region(j->fd, j->size - j->torn, j->torn, hash)) {
        jsonl_put_uint(w, "torn_bytes", j->torn);
        jsonl_put_hex(w, "torn_sha256", hash, sizeof(hash));
    }
}

static bool finish(struct keeper *k, struct keeper_journal_line *l)
{
    return jsonl_end(&l->w) && write_line(k, l->space, l->w.len);
}

/* Lines that were lost are owned up to before the first one that gets through. */
static bool close_gap(struct keeper *k)
{
    struct keeper_journal *j = &k->journal;
    struct keeper_journal_line *l = &j->gap;

    if (j->file_pending) { /* the first line of its file, whatever is behind it */
        begin_fields(k, l, "file");
        jsonl_put_uint(&l->w, "number", j->file);
        jsonl_put_uint(&l->w, "oldest", j->oldest);
        put_torn(j, &l->w);
        if (!finish(k, l)) {
            return false;
        }
        j->file_pending = false;
    }
    if (j->gap_lines == 0 && j->torn == 0) {
        return true;
    }
    begin_fields(k, l, "gap");
    jsonl_put_uint(&l->w, "lost", j->gap_lines);
    put_torn(j, &l->w);
    if (!finish(k, l)) {
        return false;
    }
    j->gap_lines = 0;
    return true;
}

void keeper_journal_begin(struct keeper *k, struct keeper_journal_line *l, const char *event)
{
    l->lost = k->journal.fd == -1 || !close_gap(k);
    begin_fields(k, l, event);
}

bool keeper_journal_end(struct keeper *k, struct keeper_journal_line *l)
{
    struct keeper_journal *j = &k->journal;

    if (j->fd == -1) {
        return false;
    }
    if (l->lost || !finish(k, l)) {
        j->n_lost++;
        j->gap_lines++;
        return false;
    }
    if (!j->dirty) {
        uint64_t now_ms = keeper_clock_now_ms(&k->clock);
        uint64_t next_ms = j->head_ms + HEAD_EVERY_MS;

        j->dirty = true;
        j->head_due_ms = next_ms > now_ms + HEAD_SOON_MS ? next_ms : now_ms + HEAD_SOON_MS;
    }
    return true;
}

/* --- heads ------------------------------------------------------------------------------------ */
/* The head file says how far the journal goes, so that a tail that is cut off is missed. */
static void write_head_file(struct keeper *k, struct str line)
{
    struct keeper_journal *j = &k->journal;
    char text[JOURNAL_HEAD_SIZE];

    if (j->head_fd == -1 || line.n >= sizeof(text)) {
        return;
    }
    memset(text, ' ', sizeof(text));
    memcpy(text, line.p, line.n);
    text[sizeof(text) - 1] = '\n';
    if (pwrite(j->head_fd, text, sizeof(text), 0) != (ssize_t)sizeof(text) ||
        fdatasync(j->head_fd) == -1) {
        failing(k, errno != 0 ? errno : ENOSPC);
    }
}

static void write_head(struct keeper *k)
{
    struct keeper_journal *j = &k->journal;
    struct keeper_journal_line *l = &j->line;
    uint8_t signature[1024];
    size_t n = sizeof(signature);
    bool shown = keeper_journal_authority(k); /* each file shows whose its heads are */

    j->head_ms = keeper_clock_now_ms(&k->clock);
    j->head_due_ms = j->head_ms + HEAD_EVERY_MS; /* if it does not get through */
    if (!shown) {
        return; /* nobody could verify it */
    }
    keeper_journal_begin(k, l, "head");
    jsonl_put_hex(&l->w, "authority", j->authority, sizeof(j->authority));
    if (l->lost || l->w.full ||
        !sign_head(k->authority.force->node_key, (struct str){l->w.text, l->w.len}, signature,
                   &n)) {
        return;
    }
    jsonl_put_base64(&l->w, "signature", signature, n);
    if (!finish(k, l)) {
        return;
    }
    j->dirty = false;
    if (fdatasync(j->fd) == -1) {
        failing(k, errno);
    }
    write_head_file(k, (struct str){l->w.text, l->w.len});
}

/* --- files ------------------------------------------------------------------------------------ */
/* What the end of a file that is gone on with looks like. */
struct tail {
    bool any;     /* a good line was there */
    uint64_t end; /* behind its newline */
    bool broken;  /* lines there do not follow each other */
    uint64_t seq;
    uint8_t hash[JOURNAL_HASH_SIZE];
};

static void tail_line(struct tail *t, struct str line, uint64_t end)
{
    struct journal_line parsed;

    if (!journal_line_parse(line, &parsed)) {
        return; /* torn: a later line accounts for it, or the one that is to come */
    }
    if (t->any &&
        (parsed.seq != t->seq + 1 || memcmp(parsed.prev, t->hash, sizeof(t->hash)) != 0)) {
        t->broken = true;
    }
    t->any = true;
    t->seq = parsed.seq;
    t->end = end;
    journal_hash(line, t->hash);
}

static int read_tail(int fd, uint64_t size, struct tail *ret, struct err *err)
{
    uint64_t from = size > TAIL_MAX ? size - TAIL_MAX : 0;
    size_t len = (size_t)(size - from), at = 0;
    mem_autofree char *text = mem_must_calloc(1, len + 1);
    struct tail t = {.end = from};
    ssize_t got = pread(fd, text, len, (off_t)from);

    if (got != (ssize_t)len) {
        return err_sys(err, "the journal cannot be read");
    }
    if (from > 0) {
        const char *first = memchr(text, '\n', len);

        at = first != NULL ? (size_t)(first - text) + 1 : len;
        t.end = from + at;
    }
    while (at < len) {
        const char *end = memchr(text + at, '\n', len - at);

        if (end == NULL) {
            break;
        }
        tail_line(&t, (struct str){text + at, (size_t)(end - text) - at},
                  from + (uint64_t)(end - text) + 1);
        at = (size_t)(end - text) + 1;
    }
    *ret = t;
    return 0;
}

/* The last head that was signed here. A journal that does not reach it was cut off meanwhile: that
 * is told, and stands in the line, since the head itself is about to be overwritten. */
static void check_head(struct keeper *k, struct jsonl_writer *w, uint64_t seq)
{
    char text[JOURNAL_HEAD_SIZE];
    struct journal_line head;
    ssize_t n = k->journal.head_fd == -1 ? 0 : pread(k->journal.head_fd, text, sizeof(text), 0);

    while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\n')) {
        n--;
    }
    if (n <= 0 || !journal_line_parse((struct str){text, (size_t)n}, &head) || head.seq <= seq) {
        return;
    }
    jsonl_put_uint(w, "missing_head", head.seq);
    log_msg(k->log, LOG_ERROR, "journal_cut",
            "the journal ends at line %llu, but a head of line %llu was signed: lines are gone",
            (unsigned long long)seq, (unsigned long long)head.seq);
}

/* Goes on where the last agent ended, wherever that was. */
static int resume(struct keeper *k, uint64_t size, struct err *err)
{
    struct keeper_journal *j = &k->journal;
    struct keeper_journal_line *l = &j->line;
    struct tail t = {.any = false};

    if (read_tail(j->fd, size, &t, err) == -1) {
        return -1;
    }
    j->seq = t.seq;
    memcpy(j->prev, t.hash, sizeof(j->prev));
    j->torn = size - t.end;
    if (!t.any || t.broken) {
        log_msg(k->log, LOG_ERROR, "journal_damaged",
                "the end of journal file %llu does not hold together: look with `postern journal "
                "verify`; the journal goes on behind it",
                (unsigned long long)j->file);
    }
    l->lost = false;
    begin_fields(k, l, "resumed");
    put_torn(j, &l->w);
    check_head(k, &l->w, t.seq);
    (void)keeper_journal_end(k, l); /* a full disk does not keep an agent from starting */
    return 0;
}

static int first_file(struct keeper *k, struct err *err)
{
    struct keeper_journal *j = &k->journal;
    struct stat st;

    if (fstat(j->fd, &st) == -1) {
        return err_sys(err, "the journal's file");
    }
    j->size = (uint64_t)st.st_size;
    if (st.st_size > 0) {
        return resume(k, (uint64_t)st.st_size, err);
    }
    keeper_journal_begin(k, &j->line, "started");
    jsonl_put_text(&j->line.w, "trust_domain", str_of(k->trust_domain), AGENT_TRUST_DOMAIN_MAX);
    check_head(k, &j->line.w, 0);
    (void)keeper_journal_end(k, &j->line);
    return 0;
}

int keeper_journal_on_file(struct keeper *k, const struct agent_msg_journal *msg, int fd,
                           struct err *err)
{
    struct keeper_journal *j = &k->journal;
    bool first = j->fd == -1;

    if (!first && (!j->next_asked || msg->number <= j->file)) {
        close(fd);
        return err_set(err, ERR_PROTOCOL, "a journal file came that was not asked for");
    }
    if (!first) {
        if (j->dirty) {
            write_head(k);
        }
        if (j->torn > 0) {
            /* What is torn has to be owned up to in its own file, which takes nothing now. */
            close(fd);
            j->next_asked = false;
            j->next_ms = keeper_clock_now_ms(&k->clock) + NEXT_AGAIN_MS;
            return 0;
        }
        close(j->fd);
    }
    j->fd = fd;
    j->file = msg->number;
    j->max_size = msg->max_size;
    j->next_asked = false;
    j->next_ms = 0;
    j->n_chain = 0; /* each file names the authorities of its heads */
    j->bundle_generation = 0;
    if (first) {
        return first_file(k, err);
    }
    j->size = 0;
    j->oldest = msg->oldest;
    j->file_pending = true;
    j->dirty = true;
    (void)close_gap(k);
    return 0;
}

int keeper_journal_on_head_file(struct keeper *k, int fd, struct err *err)
{
    if (k->journal.head_fd != -1 || k->journal.fd != -1) { /* it is read with the first file */
        close(fd);
        return err_set(err, ERR_PROTOCOL, "the journal's head file is out of order");
    }
    k->journal.head_fd = fd;
    return 0;
}

/* --- the loop --------------------------------------------------------------------------------- */
static int ask_next(struct keeper *k, uint64_t now_ms, struct err *err)
{
    struct keeper_journal *j = &k->journal;
    struct agent_msg_journal_next m;

    if (j->size < j->max_size || now_ms < j->next_ms) {
        return 0;
    }
    j->next_asked = true;
    j->next_ms = now_ms + NEXT_AGAIN_MS;
    agent_ipc_init(&m, AGENT_MSG_JOURNAL_NEXT, 0);
    m.number = j->file;
    return keeper_tell(k, &m, err);
}

int keeper_journal_turn(struct keeper *k, struct err *err)
{
    struct keeper_journal *j = &k->journal;
    uint64_t now_ms = keeper_clock_now_ms(&k->clock);

    if (j->fd == -1 || !k->started) {
        return 0;
    }
    (void)keeper_journal_authority(k);
    keeper_journal_sum_up(k, now_ms, false);
    if ((j->dirty || j->gap_lines > 0) && now_ms >= j->head_due_ms) {
        write_head(k);
    }
    if (j->n_lost != j->n_lost_told && now_ms - j->told_ms >= HEAD_EVERY_MS) {
        j->n_lost_told = j->n_lost;
        j->told_ms = now_ms;
        k->changed_pending = true;
    }
    return ask_next(k, now_ms, err);
}

int keeper_journal_due_ms(const struct keeper *k)
{
    const struct keeper_journal *j = &k->journal;
    uint64_t now_ms = keeper_clock_now_ms(&k->clock);

    if (j->fd == -1 || !k->started || !(j->dirty || j->gap_lines > 0)) {
        return -1;
    }
    return j->head_due_ms > now_ms ? (int)(j->head_due_ms - now_ms) : 0;
}

void keeper_journal_close(struct keeper *k, const struct err *why)
{
    struct keeper_journal *j = &k->journal;

    if (j->fd == -1) {
        return;
    }
    if (k->started) {
        keeper_journal_sum_up(k, keeper_clock_now_ms(&k->clock), true);
        keeper_journal_begin(k, &j->line, "stopped");
        if (why != NULL) {
            jsonl_put_text(&j->line.w, "error", str_of(why->what), sizeof(why->what));
        }
        (void)keeper_journal_end(k, &j->line);
        write_head(k);
    }
    close(j->fd);
    j->fd = -1;
    if (j->head_fd != -1) {
        close(j->head_fd);
        j->head_fd = -1;
    }
    free(j->chain);
}
