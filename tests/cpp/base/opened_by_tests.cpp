// The one function of a library that dynamic_library_test.cpp opens.
extern "C" __attribute__((visibility("default"))) int a_function_of_the_library(int x) { return 3 * x; }
