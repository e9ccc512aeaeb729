/* The peer of loadgen/loop.c: the same instruction, with nothing around it but a counter. x86-64. */
#include <stdint.h>
#include <time.h>

/* Nanoseconds that `calls` calls took. */
int64_t bare_loop(int64_t number, const int64_t *a, uint64_t calls)
{
    struct timespec start, end;
    register int64_t r10 asm("r10") = a[3], r8 asm("r8") = a[4], r9 asm("r9") = a[5];
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (uint64_t i = 0; i < calls; i++) {
        int64_t result;
        asm volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec;
}
