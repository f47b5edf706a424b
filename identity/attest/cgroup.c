/* cgroup: whose place in the control groups a process has.
 *
 * The kernel says where a process is, but what that place is called was chosen by whoever made it,
 * and a workload that may write to its own group makes any name *below* it. So a name counts only
 * where a workload cannot put one: the path begins at the root with what the kubelet, the container
 * engine or the system manager makes there, and it is exactly one of the forms that these make.
 * Whatever is longer is somebody's own doing and says nothing, but that it is inside a container.
 *
 * Seen from another cgroup namespace paths begin with "/..", once for each level up: what follows
 * is the child of a group above the agent's own, so no workload's doing either, and may be the
 * inner part of a form. */
#include <postern/attest.h>

#include <string.h>

enum { PARTS_MAX = 24, ID_LEN = 64 };

/* --- one path --------------------------------------------------------------------------------- */
struct place {
    struct str parts[PARTS_MAX];
    size_t n;
    bool from_above; /* began with "/.." */
};

enum answer {
    ANSWER_NONE,      /* the root: nothing is said here */
    ANSWER_OTHER,     /* somewhere that we know nothing about */
    ANSWER_INSIDE,    /* in a container or pod, but not at one of the known places */
    ANSWER_UNIT,      /* of the system manager */
    ANSWER_CONTAINER, /* with or without a pod */
};

struct finding {
    enum answer answer;
    uint32_t runtime;
    struct str id, pod, unit; /* views into the text */
    size_t n_parts;           /* how many parts of the path it took */
};

static bool is_hex_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

static bool is_hex(struct str s, size_t n)
{
    if (s.p == NULL || s.n != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!is_hex_char(s.p[i])) {
            return false;
        }
    }
    return true;
}

/* Takes a prefix, a suffix off; false, and nothing done, if it is not there. */
static bool cut_prefix(struct str *s, struct str prefix)
{
    if (!str_has_prefix(*s, prefix)) {
        return false;
    }
    *s = (struct str){s->p + prefix.n, s->n - prefix.n};
    return true;
}

static bool cut_suffix(struct str *s, struct str suffix)
{
    if (!str_has_suffix(*s, suffix)) {
        return false;
    }
    s->n -= suffix.n;
    return true;
}

/* A pod's UID: 8-4-4-4-12 hexadecimal digits, joined by `joint`; of a static pod 32 without any. */
static bool is_pod_uid(struct str s, char joint)
{
    static const size_t joints[] = {8, 13, 18, 23};
    size_t next = 0;

    if (is_hex(s, 32)) {
        return true;
    }
    if (s.n != 36) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (next < 4 && i == joints[next]) {
            if (s.p[i] != joint) {
                return false;
            }
            next++;
        } else if (!is_hex_char(s.p[i])) {
            return false;
        }
    }
    return true;
}

static bool split(struct str path, struct place *ret)
{
    *ret = (struct place){.n = 0};
    while (path.n > 0) {
        const char *slash;
        struct str part;

        if (path.p[0] != '/') {
            return false;
        }
        path = (struct str){path.p + 1, path.n - 1};
        slash = path.n > 0 ? memchr(path.p, '/', path.n) : NULL;
        part = (struct str){path.p, slash != NULL ? (size_t)(slash - path.p) : path.n};
        path = (struct str){part.p + part.n, path.n - part.n};
        if (part.n == 0) {
            return ret->n == 0 && path.n == 0; /* "/" alone */
        }
        if (str_eq(part, STR_LIT("..")) && ret->n == 0) {
            ret->from_above = true;
            continue;
        }
        if (ret->n < PARTS_MAX) {
            ret->parts[ret->n] = part;
        }
        ret->n++; /* a path with too many parts is none of ours, but it is one */
    }
    return true;
}

static struct str part(const struct place *p, size_t i)
{
    return i < p->n && i < PARTS_MAX ? p->parts[i] : STR_NONE;
}

/* --- containers of engines -------------------------------------------------------------------- */
static const struct {
    struct str prefix;
    enum agent_runtime runtime;
    bool in_pods; /* the kubelet's containers have this form; else the engine's own */
} SCOPES[] = {
    {{"cri-containerd-", 15}, AGENT_RUNTIME_CONTAINERD, true},
    {{"crio-", 5}, AGENT_RUNTIME_CRIO, true},
    {{"docker-", 7}, AGENT_RUNTIME_DOCKER, true},
    {{"docker-", 7}, AGENT_RUNTIME_DOCKER, false},
    {{"libpod-", 7}, AGENT_RUNTIME_PODMAN, false},
    {{"nerdctl-", 8}, AGENT_RUNTIME_CONTAINERD, false},
};

/* "RUNTIME-ID.scope". The monitor of CRI-O (crio-conmon-ID.scope) has no hexadecimal ID. */
static bool take_scope(struct str s, bool in_pods, struct finding *f)
{
    if (!cut_suffix(&s, STR_LIT(".scope"))) {
        return false;
    }
    for (size_t i = 0; i < sizeof(SCOPES) / sizeof(SCOPES[0]); i++) {
        struct str id = s;

        if (SCOPES[i].in_pods == in_pods && cut_prefix(&id, SCOPES[i].prefix) &&
            is_hex(id, ID_LEN)) {
            f->runtime = SCOPES[i].runtime;
            f->id = id;
            return true;
        }
    }
    return false;
}

/* Engines without the kubelet. */
static bool take_engine(const struct place *p, struct finding *f)
{
    struct str top = part(p, 0), id = part(p, 1);

    if (str_eq(top, STR_LIT("docker")) && is_hex(id, ID_LEN)) {
        f->runtime = AGENT_RUNTIME_DOCKER;
        f->id = id;
        f->n_parts = 2;
        return true;
    }
    if (str_eq(top, STR_LIT("libpod_parent")) && cut_prefix(&id, STR_LIT("libpod-")) &&
        is_hex(id, ID_LEN)) {
        f->runtime = AGENT_RUNTIME_PODMAN;
        f->id = id;
        f->n_parts = 2;
    } else if (str_eq(top, STR_LIT("system.slice")) && take_scope(id, false, f)) {
        f->n_parts = 2;
    } else if (str_eq(top, STR_LIT("machine.slice"))) {
        bool in_pod = str_has_prefix(id, STR_LIT("machine-libpod_pod_")) &&
                      str_has_suffix(id, STR_LIT(".slice"));

        if (!take_scope(part(p, in_pod ? 2 : 1), false, f)) {
            return false;
        }
        f->n_parts = in_pod ? 3 : 2;
    } else {
        return false;
    }
    /* crun puts what it runs for Podman one level deeper. */
    if (f->runtime == AGENT_RUNTIME_PODMAN && str_eq(part(p, f->n_parts), STR_LIT("container"))) {
        f->n_parts++;
    }
    return true;
}

/* --- pods ------------------------------------------------------------------------------------- */
static bool is_qos(struct str s)
{
    return str_eq(s, STR_LIT("burstable")) || str_eq(s, STR_LIT("besteffort"));
}

/* [kubelet/]kubepods[/QOS]/podUID/ID: the cgroupfs driver. */
static bool take_pod_cgroupfs(const struct place *p, struct finding *f)
{
    size_t i = 0;
    bool rooted = false;
    struct str pod, id;

    if (str_eq(part(p, i), STR_LIT("kubelet"))) {
        i++;
    }
    if (str_eq(part(p, i), STR_LIT("kubepods"))) {
        rooted = true;
        i++;
    } else if (i > 0) {
        return false;
    }
    if (is_qos(part(p, i)) && (rooted || p->from_above)) {
        i++;
    }
    if (!rooted && !p->from_above) {
        return false;
    }
    pod = part(p, i);
    id = part(p, i + 1);
    if (!cut_prefix(&pod, STR_LIT("pod")) || !is_pod_uid(pod, '-')) {
        return false;
    }
    f->runtime = cut_prefix(&id, STR_LIT("crio-")) ? AGENT_RUNTIME_CRIO : AGENT_RUNTIME_OTHER;
    if (!is_hex(id, ID_LEN)) {
        return false;
    }
    f->pod = pod;
    f->id = id;
    f->n_parts = i + 2;
    return true;
}

/* "[kubelet-]kubepods[-QOS]-podUID.slice", with _ for - in the UID. *ret_stem is what is before
 * -podUID. */
static bool take_pod_slice(struct str s, struct str *ret_stem, struct str *ret_pod)
{
    static const struct str STEMS[] = {
        {"kubepods", 8},
        {"kubepods-burstable", 18},
        {"kubepods-besteffort", 19},
        {"kubelet-kubepods", 16},
        {"kubelet-kubepods-burstable", 26},
        {"kubelet-kubepods-besteffort", 27},
    };

    if (!cut_suffix(&s, STR_LIT(".slice"))) {
        return false;
    }
    for (size_t i = 0; i < sizeof(STEMS) / sizeof(STEMS[0]); i++) {
        struct str uid = s;

        if (cut_prefix(&uid, STEMS[i]) && cut_prefix(&uid, STR_LIT("-pod")) &&
            is_pod_uid(uid, '_')) {
            *ret_stem = STEMS[i];
            *ret_pod = uid;
            return true;
        }
    }
    return false;
}

/* Whether the slice `name` is the parent that systemd gives to the slice "STEM-...". */
static bool is_slice(struct str name, struct str stem)
{
    return cut_suffix(&name, STR_LIT(".slice")) && str_eq(name, stem);
}

/* [kubelet.slice/]kubepods.slice[/kubepods-QOS.slice]/kubepods[-QOS]-podUID.slice/RUNTIME-ID.scope:
 * the systemd driver. The name of a slice says which slices it is in, so they are compared. */
static bool take_pod_systemd(const struct place *p, struct finding *f)
{
    struct str stem, pod, above;
    size_t i = 0;

    while (i < p->n && i < 4 && !take_pod_slice(part(p, i), &stem, &pod)) {
        i++;
    }
    if (i == p->n || i == 4 || !take_scope(part(p, i + 1), true, f)) {
        return false;
    }
    /* From the pod's slice to the left: each has to be the parent of the one before. */
    above = stem;
    for (size_t k = i; k > 0; k--) {
        const char *dash;

        if (above.n == 0 || !is_slice(part(p, k - 1), above)) {
            return false;
        }
        dash = memrchr(above.p, '-', above.n);
        above.n = dash != NULL ? (size_t)(dash - above.p) : 0;
    }
    if (above.n > 0 && !p->from_above) {
        return false; /* it does not begin at the root */
    }
    f->pod = pod;
    f->n_parts = i + 2;
    return true;
}

/* kubepods[-QOS]-podUID.slice:cri-containerd:ID: the kubelet by systemd, containerd not. */
static bool take_pod_colons(const struct place *p, struct finding *f)
{
    bool below = str_eq(part(p, 0), STR_LIT("system.slice")) &&
                 str_eq(part(p, 1), STR_LIT("containerd.service"));
    struct str s = part(p, below ? 2 : 0), slice, stem, pod;
    const char *colon = s.n > 0 ? memchr(s.p, ':', s.n) : NULL;

    if (colon == NULL) {
        return false;
    }
    slice = (struct str){s.p, (size_t)(colon - s.p)};
    s = (struct str){colon, s.n - slice.n};
    if (!take_pod_slice(slice, &stem, &pod) || !cut_prefix(&s, STR_LIT(":cri-containerd:")) ||
        !is_hex(s, ID_LEN)) {
        return false;
    }
    f->runtime = AGENT_RUNTIME_CONTAINERD;
    f->pod = pod;
    f->id = s;
    f->n_parts = below ? 3 : 1;
    return true;
}

/* --- units of the system manager -------------------------------------------------------------- */
/* NAME.slice[/NAME-MORE.slice...]/UNIT.service, but never below user.slice, where users have
 * managers of their own, nor where containers are. */
static bool take_unit(const struct place *p, struct finding *f)
{
    struct str stem = part(p, 0), unit;
    size_t i = 1;

    if (!cut_suffix(&stem, STR_LIT(".slice")) || stem.n == 0 ||
        memchr(stem.p, '-', stem.n) != NULL || str_eq(stem, STR_LIT("user")) ||
        str_eq(stem, STR_LIT("machine")) || str_eq(stem, STR_LIT("kubepods")) ||
        str_eq(stem, STR_LIT("kubelet"))) {
        return false;
    }
    for (; i < p->n; i++) {
        struct str name = part(p, i);

        if (!cut_suffix(&name, STR_LIT(".slice"))) {
            break;
        }
        if (!str_has_prefix(name, stem) || name.n < stem.n + 2 || name.p[stem.n] != '-' ||
            memchr(name.p + stem.n + 1, '-', name.n - stem.n - 1) != NULL) {
            return false;
        }
        stem = name;
    }
    unit = part(p, i);
    if (i + 1 != p->n || unit.n > AGENT_UNIT_MAX || !cut_suffix(&unit, STR_LIT(".service")) ||
        unit.n == 0) {
        return false;
    }
    f->unit = part(p, i);
    return true;
}

/* Whether this is the beginning of a place where containers are, whole or not. */
static bool is_inside(const struct place *p)
{
    static const struct str TOPS[] = {
        {"kubepods", 8}, {"kubepods.slice", 14}, {"kubelet", 7},        {"kubelet.slice", 13},
        {"docker", 6},   {"libpod_parent", 13},  {"machine.slice", 13}, {"machine", 7},
        {"lxc", 3},      {"buildkit", 8},
    };
    struct str top = part(p, 0), second = part(p, 1), stem, pod;

    for (size_t i = 0; i < sizeof(TOPS) / sizeof(TOPS[0]); i++) {
        if (str_eq(top, TOPS[i])) {
            return true;
        }
    }
    if (str_has_prefix(top, STR_LIT("lxc.")) || str_has_prefix(top, STR_LIT("kubepods-")) ||
        str_has_prefix(top, STR_LIT("kubelet-"))) {
        return true;
    }
    if (p->from_above && (is_qos(top) || str_has_prefix(top, STR_LIT("pod")) ||
                          take_pod_slice(top, &stem, &pod) || is_hex(top, ID_LEN))) {
        return true;
    }
    if (p->from_above && str_has_suffix(top, STR_LIT(".scope"))) {
        second = top;
    } else if (!str_eq(top, STR_LIT("system.slice"))) {
        return false;
    }
    for (size_t i = 0; i < sizeof(SCOPES) / sizeof(SCOPES[0]); i++) {
        if (str_has_prefix(second, SCOPES[i].prefix) && str_has_suffix(second, STR_LIT(".scope"))) {
            return true;
        }
    }
    return str_has_prefix(part(p, 2), STR_LIT("kubepods-"));
}

/* The container at the left end of the path, whatever is behind it. */
static bool take_container(const struct place *p, struct finding *f)
{
    return take_pod_cgroupfs(p, f) || take_pod_systemd(p, f) || take_pod_colons(p, f) ||
           take_engine(p, f);
}

static void judge(const struct place *p, struct finding *f)
{
    *f = (struct finding){.answer = ANSWER_NONE};
    if (p->n == 0) {
        return;
    }
    if (take_container(p, f) && f->n_parts == p->n) {
        f->answer = ANSWER_CONTAINER;
        return;
    }
    *f = (struct finding){.answer = ANSWER_OTHER};
    if (is_inside(p)) {
        f->answer = ANSWER_INSIDE;
    } else if (take_unit(p, f)) {
        f->answer = ANSWER_UNIT;
    }
}

/* --- the file --------------------------------------------------------------------------------- */
/* HIERARCHY:CONTROLLERS:PATH; a path may have colons of its own. */
static bool take_line(struct str *rest, struct str *ret_path)
{
    const char *end = memchr(rest->p, '\n', rest->n);
    struct str line = {rest->p, end != NULL ? (size_t)(end - rest->p) : rest->n};
    const char *colon = line.n > 0 ? memchr(line.p, ':', line.n) : NULL;
    uint64_t hierarchy;

    *rest = (struct str){line.p + line.n, rest->n - line.n};
    (void)cut_prefix(rest, STR_LIT("\n"));
    if (colon == NULL ||
        !str_to_u64((struct str){line.p, (size_t)(colon - line.p)}, UINT32_MAX, &hierarchy)) {
        return false;
    }
    line = (struct str){colon + 1, line.n - (size_t)(colon + 1 - line.p)};
    colon = line.n > 0 ? memchr(line.p, ':', line.n) : NULL;
    if (colon == NULL) {
        return false;
    }
    *ret_path = (struct str){colon + 1, line.n - (size_t)(colon + 1 - line.p)};
    return ret_path->n > 0 && ret_path->p[0] == '/';
}

/* What is below our own container is a node of its own. */
static struct str below_own(struct str path, struct str own_prefix)
{
    struct str rest = path;

    if (own_prefix.n == 0 || !cut_prefix(&rest, own_prefix)) {
        return path;
    }
    if (rest.n == 0) {
        return STR_LIT("/");
    }
    return rest.p[0] == '/' ? rest : path;
}

static void put(char *to, size_t max, struct str s)
{
    if (s.n > 0 && s.n <= max) {
        memcpy(to, s.p, s.n);
        to[s.n] = 0;
    }
}

/* Findings so far. */
struct sum {
    struct finding container, unit;
    bool has_container, has_unit, two_containers, two_units, other, inside;
};

static void add(struct sum *s, const struct finding *f)
{
    switch (f->answer) {
    case ANSWER_NONE:
        break;
    case ANSWER_OTHER:
        s->other = true;
        break;
    case ANSWER_INSIDE:
        s->inside = true;
        break;
    case ANSWER_UNIT:
        s->two_units |= s->has_unit && !str_eq(s->unit.unit, f->unit);
        s->has_unit = true;
        s->unit = *f;
        break;
    case ANSWER_CONTAINER:
        s->two_containers |= s->has_container &&
                             (!str_eq(s->container.id, f->id) || !str_eq(s->container.pod, f->pod));
        s->has_container = true;
        s->container = *f;
        break;
    }
}

static void conclude(const struct sum *s, struct attest_cgroup *ret)
{
    ret->contained = s->has_container || s->inside;
    ret->conflict = s->two_containers || (!ret->contained && s->two_units);
    if (ret->conflict) {
        return;
    }
    if (s->has_container) {
        /* Of a hybrid system the unified hierarchy still names the engine's own service: not the
         * container's. */
        put(ret->container_id, AGENT_CONTAINER_ID_MAX, s->container.id);
        put(ret->pod_uid, AGENT_POD_UID_MAX, s->container.pod);
        for (char *c = ret->pod_uid; *c != 0; c++) {
            *c = *c == '_' ? '-' : *c;
        }
        ret->runtime = s->container.runtime;
    } else if (s->has_unit && !s->inside && !s->other) {
        put(ret->unit, AGENT_UNIT_MAX, s->unit.unit);
    }
}

bool attest_cgroup_parse(const char *text, size_t len, struct str own_prefix,
                         struct attest_cgroup *ret)
{
    struct str rest = {text, len}, path;
    struct sum sum = {.other = false};

    *ret = (struct attest_cgroup){.runtime = AGENT_RUNTIME_NONE};
    if (len == 0) {
        return false;
    }
    while (rest.n > 0) {
        struct place place;
        struct finding f;

        if (!take_line(&rest, &path) || !split(below_own(path, own_prefix), &place)) {
            return false;
        }
        judge(&place, &f);
        add(&sum, &f);
    }
    conclude(&sum, ret);
    return true;
}

void attest_cgroup_own_prefix(const char *text, size_t len, char ret[ATTEST_CGROUP_PREFIX_MAX + 1])
{
    struct str rest = {text, len}, path, found = STR_NONE;

    ret[0] = 0;
    while (rest.n > 0) {
        struct place place;
        struct finding f = {.n_parts = 0};
        struct str last, prefix;

        if (!take_line(&rest, &path) || !split(path, &place)) {
            return;
        }
        if (place.from_above || !take_container(&place, &f)) {
            continue;
        }
        last = part(&place, f.n_parts - 1);
        prefix = (struct str){path.p, (size_t)(last.p + last.n - path.p)};
        if (found.n > 0 && !str_eq(found, prefix)) {
            return; /* in two containers at once: in none that we could name */
        }
        found = prefix;
    }
    put(ret, ATTEST_CGROUP_PREFIX_MAX, found);
}
