/* Streams over a descriptor: what plain and TLS ones share, and the plain one. */
#include <postern/net.h>

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t SCRATCH_TOTAL = NET_HEADROOM + 2 * NET_SCRATCH_SIZE + NET_SEALED_SIZE;

int net_scratch_init(struct net_scratch *s, struct err *err)
{
    /* Mapped, not malloc'd: untouched pages stay unbacked, and trimming can give them back. */
    void *p = mmap(NULL, SCRATCH_TOTAL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return err_sys(err, "no memory for a worker's buffers");
    }
    uint8_t *base = (uint8_t *)p + NET_HEADROOM;
    *s = (struct net_scratch){.plain = base,
                              .raw = base + NET_SCRATCH_SIZE,
                              .sealed = base + (size_t)2 * NET_SCRATCH_SIZE};
    return 0;
}

void net_scratch_deinit(struct net_scratch *s)
{
    if (s->plain != NULL) {
        munmap(s->plain - NET_HEADROOM, SCRATCH_TOTAL);
        *s = (struct net_scratch){.plain = NULL};
    }
}

void net_scratch_trim(struct net_scratch *s)
{
    (void)madvise(s->plain - NET_HEADROOM, SCRATCH_TOTAL, MADV_DONTNEED);
}

static enum stream_outcome fail(struct stream *s, int sys_errno)
{
    s->sys_errno = sys_errno;
    s->failed = true;
    return STREAM_FAILED;
}

/* What waits to be sent goes nowhere. */
static enum stream_outcome fail_sending(struct stream *s, int sys_errno)
{
    buf_reset(&s->out);
    if (s->broken) {
        return STREAM_FAILED; /* the first error says what happened */
    }
    s->broken = true;
    return fail(s, sys_errno);
}

/* The end of what came, of one that failed to send. That took the error away from the socket, which
 * would now tell an end: it is one only if the other side had ended before it was sent to. */
static enum stream_outcome end_of_broken(struct stream *s)
{
    return s->sys_errno == EPIPE ? STREAM_EOF : STREAM_FAILED;
}

enum stream_outcome stream_recv(struct stream *s, uint8_t *dst, size_t n, size_t *ret_n)
{
    ssize_t r;
    do {
        r = recv(s->fd, dst, n, 0);
    } while (r == -1 && errno == EINTR);
    if (r == -1) {
        return errno == EAGAIN ? STREAM_AGAIN : fail(s, errno);
    }
    if (r == 0) {
        return s->broken ? end_of_broken(s) : STREAM_EOF;
    }
    if ((size_t)r == n && s->read_size < NET_SCRATCH_SIZE) {
        s->read_size *= 2;
    }
    *ret_n = (size_t)r;
    return STREAM_OK;
}

enum stream_outcome stream_send(struct stream *s, const uint8_t *src, size_t n)
{
    size_t sent = 0;
    if (s->out.len == 0 && n > 0) {
        ssize_t r;
        do {
            r = send(s->fd, src, n, MSG_NOSIGNAL);
        } while (r == -1 && errno == EINTR);
        if (r == -1 && errno != EAGAIN) {
            return fail_sending(s, errno);
        }
        sent = r == -1 ? 0 : (size_t)r;
    }
    if (sent < n && !buf_append(&s->out, src + sent, n - sent)) {
        return fail(s, ENOBUFS);
    }
    return STREAM_OK;
}

enum stream_outcome stream_flush(struct stream *s)
{
    if (s->ops->flush != NULL) {
        return s->ops->flush(s);
    }
    while (s->out.len > 0) {
        ssize_t r = send(s->fd, buf_head(&s->out), buf_len(&s->out), MSG_NOSIGNAL);
        if (r == -1 && errno == EINTR) {
            continue;
        }
        if (r == -1) {
            return errno == EAGAIN ? STREAM_AGAIN : fail_sending(s, errno);
        }
        buf_consume(&s->out, (size_t)r);
    }
    buf_reset(&s->out);
    if (s->shut_wanted && !s->shut_done) {
        enum stream_outcome o = s->ops->shut(s);
        return o == STREAM_OK && s->out.len > 0 ? STREAM_AGAIN : o;
    }
    return STREAM_OK;
}

enum stream_outcome stream_shut(struct stream *s)
{
    if (s->shut_wanted) {
        return STREAM_OK;
    }
    s->shut_wanted = true;
    return s->out.len > 0 ? STREAM_OK : s->ops->shut(s);
}

void stream_deinit(struct stream *s, bool reset)
{
    if (s->ops == NULL) {
        return;
    }
    if (s->ops->deinit != NULL) {
        s->ops->deinit(s);
    }
    buf_reset(&s->out);
    if (reset) {
        net_reset(s->fd);
    } else if (s->fd != -1) {
        close(s->fd);
    }
    s->fd = -1;
    s->ops = NULL;
}

static enum stream_outcome plain_read(struct stream *s, uint8_t *dst, size_t cap, size_t *ret_n)
{
    size_t got = 0;
    enum stream_outcome o = stream_recv(s, dst, cap < s->read_size ? cap : s->read_size, &got);
    if (o == STREAM_OK) {
        s->bytes_read += got;
        *ret_n = got;
    } else if (o == STREAM_EOF) {
        s->eof = true;
    }
    return o;
}

static enum stream_outcome plain_write(struct stream *s, const uint8_t *src, size_t n)
{
    s->bytes_written += n;
    return stream_send(s, src, n);
}

static enum stream_outcome plain_shut(struct stream *s)
{
    s->shut_done = true;
    /* The peer may be gone already; then its reset is what the read side reports. */
    (void)shutdown(s->fd, SHUT_WR);
    return STREAM_OK;
}

static const struct stream_ops PLAIN_OPS = {
    .name = "plain",
    .read = plain_read,
    .write = plain_write,
    .shut = plain_shut,
};

void stream_plain_init(struct stream *s, struct net_scratch *scratch, int fd)
{
    *s = (struct stream){.ops = &PLAIN_OPS,
                         .scratch = scratch,
                         .fd = fd,
                         .read_size = NET_READ_MIN,
                         .out = BUF_INIT(NET_SEALED_SIZE)};
}
