/* The tight loop: one system call, over and over, until time, a signal, a success or memory says stop.
 *
 * Built as a shared library and called through ctypes, so that nothing but this file runs between the
 * first and the last call. The layouts of `struct plan` and `struct outcome` are mirrored in loop.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* What differs between architectures is data: the instruction and the registers it speaks through. */
#if defined(__x86_64__)
#include "syscall_x86_64.h"
#else
#error "no syscall_ARCH.h for this architecture yet: add one beside syscall_x86_64.h"
#endif

#define ERRNOS 4096
#define NO_SYSCALL (-1)

#define BATCH_MAX 65536
#define BATCH_GOAL_NS 2000000LL          /* look at the clock about every 2 ms */
#define MEMORY_CHECK_NS 20000000LL       /* look at free memory every 20 ms */
#define MEMORY_PAUSE_NS 10000000LL       /* let RCU free what the loop left behind */
#define MEMORY_PATIENCE_NS 3000000000LL  /* give up when memory has not come back by then */
#define OVERTIME_NS 100000000LL          /* a batch that turned slow is cut off this long after the deadline */

enum stopped_by { BY_TIME, BY_SUCCESS, BY_MEMORY, BY_ERROR, BY_SIGNAL, BY_COUNT };

struct plan {
    int64_t number;
    int64_t arguments[6];
    int64_t undo_number; /* NO_SYSCALL: stop at the first success */
    int64_t undo_arguments[6];
    int64_t undo_result_position; /* which of undo_arguments takes the successful call's result, or -1 */
    int64_t duration_ns;
    uint64_t calls_limit; /* 0: none */
    uint64_t memory_floor; /* bytes that must stay available */
    int64_t enter_descriptor; /* cgroup.procs to move into for the time of the loop, or -1 */
    int64_t leave_descriptor; /* cgroup.procs to move back to, or -1 */
    int64_t meminfo_descriptor; /* /proc/meminfo, opened before limits and lost rights could forbid it */
    char comm[16];
};

struct outcome {
    uint64_t calls; /* this and the next are read by another process while the loop runs */
    int64_t busy_ns; /* in whole batches: pauses for memory are left out */
    uint64_t successes;
    int64_t success_result;
    int64_t elapsed_ns;
    uint64_t pauses;
    int64_t stopped_by;
    int64_t error; /* errno of the loop's own trouble, with BY_ERROR */
    int64_t usual_failure; /* the last failing result, expected again */
    uint64_t failures[ERRNOS];
};

static volatile sig_atomic_t stop_signal; /* SIGINT, SIGTERM, or the deadline's SIGALRM */

static void note_signal(int number)
{
    stop_signal = number;
}

static inline __attribute__((always_inline)) int64_t raw_syscall(int64_t call, const int64_t *arguments)
{
    register int64_t number asm(SYSCALL_NUMBER_REGISTER) = call;
    register int64_t a0 asm(SYSCALL_ARGUMENT_0) = arguments[0];
    register int64_t a1 asm(SYSCALL_ARGUMENT_1) = arguments[1];
    register int64_t a2 asm(SYSCALL_ARGUMENT_2) = arguments[2];
    register int64_t a3 asm(SYSCALL_ARGUMENT_3) = arguments[3];
    register int64_t a4 asm(SYSCALL_ARGUMENT_4) = arguments[4];
    register int64_t a5 asm(SYSCALL_ARGUMENT_5) = arguments[5];
    asm volatile(SYSCALL_INSTRUCTION
                 : "+r"(number), "+r"(a0)
                 : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5)
                 : SYSCALL_CLOBBERS);
    return SYSCALL_RESULT(number, a0);
}

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void sleep_ns(int64_t duration)
{
    struct timespec time = {duration / 1000000000LL, duration % 1000000000LL};
    nanosleep(&time, NULL);
}

/* MemAvailable of /proc/meminfo in bytes; 0 when it cannot be read. */
static uint64_t available_memory(int64_t meminfo)
{
    char text[512];
    ssize_t length = pread((int)meminfo, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = 0;
    const char *line = strstr(text, "MemAvailable:");
    return line ? strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024 : 0;
}

/* sysinfo() is cheap and knows free pages only; page cache that could be dropped is asked for just when they are few. */
static int memory_is_short(const struct plan *plan)
{
    struct sysinfo info;
    if (sysinfo(&info) == 0 && (uint64_t)info.freeram * info.mem_unit >= plan->memory_floor)
        return 0;
    return available_memory(plan->meminfo_descriptor) < plan->memory_floor;
}

/* Objects freed through RCU pile up while this loop keeps the CPU: sleep until they are gone. 0 when they never go. */
static int wait_for_memory(const struct plan *plan, struct outcome *outcome)
{
    int64_t deadline = now_ns() + MEMORY_PATIENCE_NS;
    while (memory_is_short(plan)) {
        if (stop_signal || now_ns() > deadline)
            return 0;
        outcome->pauses++;
        sleep_ns(MEMORY_PAUSE_NS);
    }
    return 1;
}

static void undo_success(const struct plan *plan, int64_t result)
{
    int64_t arguments[6];
    memcpy(arguments, plan->undo_arguments, sizeof arguments);
    if (plan->undo_result_position >= 0)
        arguments[plan->undo_result_position] = result;
    raw_syscall(plan->undo_number, arguments);
}

static inline int is_failure(int64_t result)
{
    return (uint64_t)result > -(uint64_t)ERRNOS;
}

/* Calls up to `limit` times, as long as the result is `expected`; the first other one ends it and is left in `other`.
 * How many gave `expected`. Nothing but registers is used between the calls: under emulation each access to memory
 * costs as much as ten instructions. Not inlined, so that none of those registers is wanted for something else. */
static __attribute__((noinline)) uint64_t
repeat_while(const struct plan *plan, int64_t expected, uint64_t limit, int64_t *other)
{
    const int64_t number = plan->number;
    const int64_t arguments[6] = {plan->arguments[0], plan->arguments[1], plan->arguments[2],
                                  plan->arguments[3], plan->arguments[4], plan->arguments[5]};
    uint64_t count = 0;
    *other = expected;
    while (count < limit && !stop_signal) {
        int64_t result = raw_syscall(number, arguments);
        if (__builtin_expect(result != expected, 0)) {
            *other = result;
            break;
        }
        count++;
    }
    return count;
}

/* Up to `size` calls, fewer when a signal arrives; 0 when a success ends the loop. */
static int run_batch(const struct plan *plan, struct outcome *outcome, uint64_t size)
{
    uint64_t end = outcome->calls + size;
    while (outcome->calls < end && !stop_signal) {
        int64_t result, usual = outcome->usual_failure;
        uint64_t same = repeat_while(plan, usual, end - outcome->calls, &result);
        outcome->calls += same;
        outcome->failures[-usual] += same;
        if (result == usual)
            continue;
        outcome->calls++;
        if (is_failure(result)) {
            outcome->failures[-result]++;
            outcome->usual_failure = result;
            continue;
        }
        outcome->successes++;
        outcome->success_result = result;
        if (plan->undo_number == NO_SYSCALL)
            return 0;
        undo_success(plan, result);
    }
    return 1;
}

/* The batch that would have taken BATCH_GOAL_NS, approached by doubling and halving. */
static uint64_t next_batch(uint64_t size, int64_t took)
{
    if (took < BATCH_GOAL_NS / 2 && size < BATCH_MAX)
        return size * 2;
    return took > BATCH_GOAL_NS * 2 && size > 1 ? size / 2 : size;
}

static enum stopped_by by_signal(void)
{
    return stop_signal == SIGALRM ? BY_TIME : BY_SIGNAL;
}

static enum stopped_by loop_until_stopped(const struct plan *plan, struct outcome *outcome)
{
    int64_t started = now_ns(), now = started, next_memory_check = started;
    uint64_t size = 1;
    for (;;) {
        if (now >= next_memory_check) {
            if (!wait_for_memory(plan, outcome))
                return stop_signal ? by_signal() : BY_MEMORY;
            now = now_ns();
            next_memory_check = now + MEMORY_CHECK_NS;
        }
        if (stop_signal)
            return by_signal();
        if (plan->calls_limit && plan->calls_limit - outcome->calls < size)
            size = plan->calls_limit - outcome->calls;
        if (!run_batch(plan, outcome, size))
            return BY_SUCCESS;
        int64_t before = now;
        now = now_ns();
        outcome->busy_ns += now - before;
        if (now - started >= plan->duration_ns)
            return BY_TIME;
        if (plan->calls_limit && outcome->calls >= plan->calls_limit)
            return BY_COUNT;
        size = next_batch(size, now - before);
    }
}

static const int caught[] = {SIGINT, SIGTERM, SIGALRM};
#define CAUGHT (sizeof caught / sizeof caught[0])

static void catch_signals(struct sigaction *before)
{
    struct sigaction action = {.sa_handler = note_signal};
    stop_signal = 0;
    for (size_t i = 0; i < CAUGHT; i++)
        sigaction(caught[i], &action, &before[i]);
}

static void restore_signals(const struct sigaction *before)
{
    for (size_t i = 0; i < CAUGHT; i++)
        sigaction(caught[i], &before[i], NULL);
}

/* 0 disarms. */
static void set_alarm(int64_t after_ns)
{
    struct itimerval timer = {.it_value = {after_ns / 1000000000LL, after_ns % 1000000000LL / 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* Writing "0" to cgroup.procs moves the writer itself. */
static int enter_cgroup(int64_t descriptor)
{
    return descriptor < 0 || write((int)descriptor, "0", 1) == 1;
}

/* Runs the plan in the calling thread and fills `outcome`, whose pages are touched before the loop begins. */
void whyerrno_loop(const struct plan *plan, struct outcome *outcome)
{
    struct sigaction before[CAUGHT];
    memset(outcome, 0, sizeof *outcome);
    outcome->usual_failure = -EPERM; /* any will do to begin with */
    catch_signals(before);
    set_alarm(plan->duration_ns + OVERTIME_NS);
    prctl(PR_SET_NAME, plan->comm);
    int64_t started = now_ns();
    if (enter_cgroup(plan->enter_descriptor)) {
        outcome->stopped_by = loop_until_stopped(plan, outcome);
        enter_cgroup(plan->leave_descriptor);
    } else {
        outcome->stopped_by = BY_ERROR;
        outcome->error = errno;
    }
    outcome->elapsed_ns = now_ns() - started;
    set_alarm(0);
    restore_signals(before);
}
