/* A load that does not do what it was said to do, as a test:
 *
 *   panic     the kernel panics
 *   succeed   bind succeeds again and again
 *   abort     the program crashes
 *   nothing   the program exits at once
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void panic(void)
{
    int trigger = access("/whyerrno", F_OK) ? -1 : open("/proc/sysrq-trigger", O_WRONLY); /* only in a guest */
    sleep(1);
    if (write(trigger, "c", 1) != 1)
        _exit(1);
    pause();
}

static void succeed(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    for (;;) {
        int taken = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(taken, (struct sockaddr *)&any, sizeof any))
            _exit(1);
        close(taken);
    }
}

int main(int count, char **arguments)
{
    const char *what = count > 1 ? arguments[1] : "nothing";
    if (!strcmp(what, "panic"))
        panic();
    if (!strcmp(what, "succeed"))
        succeed();
    if (!strcmp(what, "abort"))
        abort();
    return 0;
}
