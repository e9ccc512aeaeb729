"""Kernel functions that do not return to their caller: they end the task or the machine.

Found by building the graph of every function of Linux 6.1: those that are called, and have no way out; with the
names that the same had in 5.10 and have in 7.3, and AArch64's. A call that ends its function needs no entry here.
"""

_NAMES = """
__fortify_panic __ghes_panic __module_put_and_exit __module_put_and_kthread_exit __stack_chk_fail
__ubsan_handle_builtin_unreachable
arch_call_rest_init arch_cpu_idle_dead arm64_serror_panic
complete_and_exit cpu_bringup_and_idle cpu_park_loop cpu_startup_entry
do_exit do_group_exit do_task_dead
fortify_panic
handle_stack_overflow hlt_play_dead hv_ghcb_terminate
kthread_complete_and_exit kthread_exit
machine_real_restart make_task_dead
nmi_panic_self_stop
panic panic_bad_stack panic_show_mem panic_smp_self_stop play_dead
rest_init rewind_stack_and_make_dead rewind_stack_do_exit
sev_es_terminate skb_panic snp_abort start_kernel stop_this_cpu
usercopy_abort
vpanic
xen_cpu_bringup_again xen_start_kernel
"""
NO_RETURN = frozenset(_NAMES.split())
