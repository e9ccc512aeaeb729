#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <time.h>
/* children under odd names, each in a tight stat() loop for 0.1 s */
static const char *names[] = {"a b [001] c: d", "12/13 [000]", "x\ny", "\033[31mred", "\xff\xfe bad", "$(x);rm", "<b>&amp;"};
int main(void){ for(unsigned i=0;i<sizeof names/sizeof *names;i++){ if(!fork()){ struct timespec a,b; struct stat s; prctl(PR_SET_NAME,names[i]); clock_gettime(CLOCK_MONOTONIC,&a);
  do { for(int k=0;k<50;k++) stat("/nonexistent",&s); clock_gettime(CLOCK_MONOTONIC,&b);} while((b.tv_sec-a.tv_sec)*1000000000L+b.tv_nsec-a.tv_nsec<100000000L); _exit(0);} wait(0);} return 0; }
