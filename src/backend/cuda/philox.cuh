// Random numbers as a function of addresses: twin of `rng::Stream`, the same bits.

// Two uniforms on the open interval (0, 1).
struct Uniforms {
  double first, second;
};

// (m + 1/2) 2^-53, m the top 53 bits; held away from 1 where the sum rounds.
__device__ __forceinline__ double unit(u32 low, u32 high) {
  u64 mantissa = (((u64)high << 32) | (u64)low) >> 11;
  double value = __dmul_rn(__dadd_rn((double)mantissa, 0.5), 1.1102230246251565404e-16);
  return fmin(value, 0.99999999999999988898);
}

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011) at the counter (sample, draw).
__device__ __forceinline__ Uniforms uniform_pair(u32 key0, u32 key1, u64 sample, u64 draw) {
  u32 a = (u32)sample, b = (u32)(sample >> 32), c = (u32)draw, d = (u32)(draw >> 32);
  for (int round = 0; round < 10; ++round) {
    u64 first = (u64)0xD2511F53u * a, second = (u64)0xCD9E8D57u * c;
    a = (u32)(second >> 32) ^ b ^ key0;
    b = (u32)second;
    c = (u32)(first >> 32) ^ d ^ key1;
    d = (u32)first;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  Uniforms u;
  u.first = unit(a, b);
  u.second = unit(c, d);
  return u;
}

// The cosine branch of Box and Muller (1958). 2 u2 is exact, and so is cospi's
// reduction: the absolute error is that of the last roundings.
__device__ __forceinline__ double standard_normal(u32 key0, u32 key1, u64 sample, u64 draw) {
  Uniforms u = uniform_pair(key0, key1, sample, draw);
  return sqrt(-2.0 * log(u.first)) * cospi(2.0 * u.second);
}
