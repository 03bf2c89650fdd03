// Threads of the native core.
//
// They block every signal that a process can handle at leisure, so that Python's handlers run on its
// main thread and interrupt its waits; the fatal ones stay open because the faulting thread must
// take them.
#pragma once

#include <cstddef>
#include <functional>
#include <thread>

namespace hpresil {

// Starts `body`, which must not throw. Throws NativeError when the system has no more threads.
std::thread start_thread(const char* name, std::function<void()> body);

// Runs work(0) … work(tasks - 1), each once, on up to `threads` threads, the caller's included.
// Tasks are handed out in order, so uneven ones balance. `work` must not throw. With no more threads
// to be had, it runs on those there are.
void run_parallel(int threads, std::size_t tasks, const std::function<void(std::size_t)>& work);

}  // namespace hpresil
