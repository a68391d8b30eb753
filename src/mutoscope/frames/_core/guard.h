// Kill points of the crash tests: they are compiled in only with -DMUTOSCOPE_KILL_POINTS.
#ifndef MUTOSCOPE_GUARD_H
#define MUTOSCOPE_GUARD_H
#define MUTOSCOPE_API __attribute__((visibility("default")))
#ifdef MUTOSCOPE_KILL_POINTS
void mutoscope_kill_point(const char *name);
#define KILL_POINT(name) mutoscope_kill_point(name)
#else
#define KILL_POINT(name) ((void)0)
#endif
#endif
