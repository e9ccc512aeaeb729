/* Somebody's own load, as a test: binds a second socket to a port that is taken, for as many seconds as asked.
 *
 *   cc -O2 -o repro repro_bind.c && ./repro 5
 *
 * It knows nothing of whyerrno. Exit code 0 when every bind failed with EADDRINUSE, 1 otherwise.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int count, char **arguments)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    double end = now() + (count > 1 ? atof(arguments[1]) : 5);
    int taken = socket(AF_INET, SOCK_STREAM, 0), wanting = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(taken, (struct sockaddr *)&address, sizeof address) || listen(taken, 1)
        || getsockname(taken, (struct sockaddr *)&address, &length)) {
        perror("set-up");
        return 1;
    }
    unsigned long calls = 0;
    do {
        for (int i = 0; i < 1000; i++, calls++) {
            if (bind(wanting, (struct sockaddr *)&address, sizeof address) == 0 || errno != EADDRINUSE) {
                fprintf(stderr, "bind did not fail with EADDRINUSE: %s\n", strerror(errno));
                return 1;
            }
        }
    } while (now() < end);
    printf("bind failed %lu times with EADDRINUSE\n", calls);
    return 0;
}
