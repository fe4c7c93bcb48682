// Layer normalization in C, for npm run bench: llm.c's formulation written anew, and with -DAVX2 one by hand with fused
// multiply-adds. Reads commands, one a line, and answers each with a line:
//
//   load PATH ROWS COLS    x, dy, weight and bias as float32 from a file
//   forward N, backward N  N calls; milliseconds for one
//   save PATH              y, dx, dweight, dbias to a file

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static float *x, *dy, *weight, *bias, *y, *dx, *dweight, *dbias, *mean, *rstd;
static size_t rows, cols;
static const float eps = 1e-5f;

#ifdef AVX2
#include <immintrin.h>

static float total(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

// Two passes for the moments' sums at once, eight lanes, four accumulators; cols a multiple of 32, else the rest one by one.
static void forward(void) {
  for (size_t row = 0; row < rows; row++) {
    const float *p = x + row * cols;
    float *q = y + row * cols;
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0, e0 = s0, e1 = s0, e2 = s0, e3 = s0;
    size_t i = 0;
    for (; i + 32 <= cols; i += 32) {
      __m256 a = _mm256_loadu_ps(p + i), b = _mm256_loadu_ps(p + i + 8);
      __m256 c = _mm256_loadu_ps(p + i + 16), d = _mm256_loadu_ps(p + i + 24);
      s0 = _mm256_add_ps(s0, a), s1 = _mm256_add_ps(s1, b), s2 = _mm256_add_ps(s2, c), s3 = _mm256_add_ps(s3, d);
      e0 = _mm256_fmadd_ps(a, a, e0), e1 = _mm256_fmadd_ps(b, b, e1);
      e2 = _mm256_fmadd_ps(c, c, e2), e3 = _mm256_fmadd_ps(d, d, e3);
    }
    float s = total(_mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3)));
    float e = total(_mm256_add_ps(_mm256_add_ps(e0, e1), _mm256_add_ps(e2, e3)));
    for (; i < cols; i++) s += p[i], e += p[i] * p[i];
    float m = s / cols, r = 1.0f / sqrtf(e / cols - m * m + eps);
    __m256 scale = _mm256_set1_ps(r), shift = _mm256_set1_ps(-m * r);
    for (i = 0; i + 8 <= cols; i += 8) {
      __m256 n = _mm256_fmadd_ps(_mm256_loadu_ps(p + i), scale, shift);
      _mm256_storeu_ps(q + i, _mm256_fmadd_ps(n, _mm256_loadu_ps(weight + i), _mm256_loadu_ps(bias + i)));
    }
    for (; i < cols; i++) q[i] = (p[i] - m) * r * weight[i] + bias[i];
    mean[row] = m, rstd[row] = r;
  }
}

static void backward(void) {
  for (size_t row = 0; row < rows; row++) {
    const float *p = x + row * cols, *g = dy + row * cols;
    float *o = dx + row * cols, m = mean[row], r = rstd[row];
    __m256 mv = _mm256_set1_ps(m), rv = _mm256_set1_ps(r), s0 = _mm256_setzero_ps(), s1 = s0, q0 = s0, q1 = s0;
    size_t i = 0;
    for (; i + 16 <= cols; i += 16) {
      __m256 d0 = _mm256_loadu_ps(g + i), d1 = _mm256_loadu_ps(g + i + 8);
      __m256 h0 = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(p + i), mv), rv);
      __m256 h1 = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(p + i + 8), mv), rv);
      _mm256_storeu_ps(dbias + i, _mm256_add_ps(_mm256_loadu_ps(dbias + i), d0));
      _mm256_storeu_ps(dbias + i + 8, _mm256_add_ps(_mm256_loadu_ps(dbias + i + 8), d1));
      _mm256_storeu_ps(dweight + i, _mm256_fmadd_ps(d0, h0, _mm256_loadu_ps(dweight + i)));
      _mm256_storeu_ps(dweight + i + 8, _mm256_fmadd_ps(d1, h1, _mm256_loadu_ps(dweight + i + 8)));
      d0 = _mm256_mul_ps(d0, _mm256_loadu_ps(weight + i)), d1 = _mm256_mul_ps(d1, _mm256_loadu_ps(weight + i + 8));
      s0 = _mm256_add_ps(s0, d0), s1 = _mm256_add_ps(s1, d1);
      q0 = _mm256_fmadd_ps(d0, h0, q0), q1 = _mm256_fmadd_ps(d1, h1, q1);
    }
    float s = total(_mm256_add_ps(s0, s1)), q = total(_mm256_add_ps(q0, q1));
    for (; i < cols; i++) {
      float h = (p[i] - m) * r, d = g[i] * weight[i];
      dbias[i] += g[i], dweight[i] += g[i] * h, s += d, q += d * h;
    }
    float a = s / cols, c = q / cols * r;
    __m256 av = _mm256_set1_ps(a), cv = _mm256_set1_ps(c);
    for (i = 0; i + 8 <= cols; i += 8) {
      __m256 d = _mm256_fmsub_ps(_mm256_loadu_ps(g + i), _mm256_loadu_ps(weight + i), av);
      __m256 h = _mm256_sub_ps(_mm256_loadu_ps(p + i), mv);
      _mm256_storeu_ps(o + i, _mm256_mul_ps(rv, _mm256_fnmadd_ps(h, cv, d)));
    }
    for (; i < cols; i++) o[i] = r * (g[i] * weight[i] - a - (p[i] - m) * c);
  }
}
#else
static void forward(void) {
  for (size_t row = 0; row < rows; row++) {
    const float *p = x + row * cols;
    float m = 0, v = 0;
    for (size_t i = 0; i < cols; i++) m += p[i];
    m /= cols;
    for (size_t i = 0; i < cols; i++) v += (p[i] - m) * (p[i] - m);
    float r = 1.0f / sqrtf(v / cols + eps);
    for (size_t i = 0; i < cols; i++) y[row * cols + i] = (p[i] - m) * r * weight[i] + bias[i];
    mean[row] = m;
    rstd[row] = r;
  }
}

static void backward(void) {
  for (size_t row = 0; row < rows; row++) {
    const float *p = x + row * cols, *g = dy + row * cols;
    float m = mean[row], r = rstd[row], a = 0, c = 0;
    for (size_t i = 0; i < cols; i++) {
      float d = g[i] * weight[i];
      a += d;
      c += d * ((p[i] - m) * r);
    }
    a /= cols;
    c /= cols;
    for (size_t i = 0; i < cols; i++) {
      float h = (p[i] - m) * r;
      dbias[i] += g[i];
      dweight[i] += g[i] * h;
      dx[row * cols + i] = (g[i] * weight[i] - a - h * c) * r;
    }
  }
}
#endif

static float *room(float *old, size_t count) {
  free(old);
  float *block = aligned_alloc(64, (count * 4 + 63) / 64 * 64);
  memset(block, 0, count * 4);
  return block;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void transfer(const char *path, const char *mode, float **parts, const size_t *counts) {
  FILE *file = fopen(path, mode);
  for (int i = 0; i < 4; i++) {
    size_t done = *mode == 'r' ? fread(parts[i], 4, counts[i], file) : fwrite(parts[i], 4, counts[i], file);
    if (done != counts[i]) exit(1);
  }
  fclose(file);
}

int main(void) {
  char line[4096], path[4096];
  while (fgets(line, sizeof line, stdin)) {
    size_t count;
    if (sscanf(line, "load %4095s %zu %zu", path, &rows, &cols) == 3) {
      size_t size = rows * cols;
      x = room(x, size), dy = room(dy, size), y = room(y, size), dx = room(dx, size);
      weight = room(weight, cols), bias = room(bias, cols), dweight = room(dweight, cols), dbias = room(dbias, cols);
      mean = room(mean, rows), rstd = room(rstd, rows);
      transfer(path, "r", (float *[]){x, dy, weight, bias}, (size_t[]){size, size, cols, cols});
      puts("ok");
    } else if (sscanf(line, "save %4095s", path) == 1) {
      size_t size = rows * cols;
      transfer(path, "w", (float *[]){y, dx, dweight, dbias}, (size_t[]){size, size, cols, cols});
      puts("ok");
    } else if (sscanf(line, "forward %zu", &count) == 1) {
      double start = now();
      for (size_t i = 0; i < count; i++) forward();
      printf("%.9f\n", (now() - start) / count);
    } else if (sscanf(line, "backward %zu", &count) == 1) {
      double start = now();
      for (size_t i = 0; i < count; i++) backward();
      printf("%.9f\n", (now() - start) / count);
    } else {
      return 1;
    }
    fflush(stdout);
  }
  return 0;
}
