package media

import (
	"math/rand/v2"
	"testing"
)

// OpenAI's published figures ("Images and vision"), and bills that were
// published (community.openai.com, topics 1230130, 1262691 and 1281361, less the
// tokens of their texts).
func TestOpenAI(t *testing.T) {
	t.Parallel()
	tests := []struct {
		model         string
		width, height int64
		detail        Detail
		want          Count
	}{
		{"gpt-4o", 1024, 1024, High, Count{Tokens: 765, Bound: 765}},
		{"gpt-4o", 1024, 1024, Auto, Count{Tokens: 765, Bound: 765}},
		{"gpt-4o", 2048, 4096, High, Count{Tokens: 1105, Bound: 1105}},
		{"gpt-4o", 4096, 2048, High, Count{Tokens: 1105, Bound: 1105}},
		{"gpt-4o", 2048, 4096, Low, Count{Tokens: 85, Bound: 85}},
		{"gpt-4o", 512, 512, High, Count{Tokens: 255, Bound: 255}},
		{"gpt-4o", 513, 512, High, Count{Tokens: 425, Bound: 425}},
		{"gpt-4o", 128, 64, High, Count{Tokens: 255, Bound: 255}},     // small images are not enlarged
		{"gpt-4o", 2048, 768, High, Count{Tokens: 1445, Bound: 1445}}, // the most: four by two
		{"gpt-4o", 16384, 1, High, Count{Tokens: 765, Bound: 765}},
		{"gpt-4.1", 2049, 513, High, Count{Tokens: 1445, Bound: 1445}},
		{"gpt-4.1", 2050, 513, High, Count{Tokens: 765, Bound: 1445}},
		{"gpt-4o-mini", 128, 64, Low, Count{Tokens: 2833, Bound: 2833}},
		{"gpt-4o-mini", 128, 64, High, Count{Tokens: 8500, Bound: 8500}},
		{"o3", 128, 64, Low, Count{Tokens: 75, Bound: 75}},
		{"o1", 128, 64, High, Count{Tokens: 225, Bound: 225}},
		{"gpt-5", 1024, 1024, High, Count{Tokens: 630, Bound: 630}},
		{"gpt-5.1", 1024, 1024, Low, Count{Tokens: 70, Bound: 70}},
		{"computer-use-preview", 1024, 1024, High, Count{Tokens: 581, Bound: 581}},

		{"gpt-5.4", 1024, 1024, High, Count{Tokens: 1229, Bound: 1230}},
		{"gpt-5.4", 2048, 2048, High, Count{Tokens: 3000, Bound: 3001}},
		{"gpt-5.4", 2048, 2048, Low, Count{Tokens: 4916, Bound: 4917}},
		{"gpt-5.5", 2048, 2048, Low, Count{Tokens: 308, Bound: 309}},
		{"gpt-5.5", 2048, 2048, Auto, Count{Tokens: 4916, Bound: 4917}},
		{"gpt-5.6-sol", 4000, 2500, Auto, Count{Tokens: 11850, Bound: 11851}},
		{"gpt-5.6-sol", 4000, 2500, Low, Count{Tokens: 192, Bound: 193}},
		{"o4-mini", 1800, 2400, High, Count{Tokens: 2498, Bound: 5285}},      // 1452 patches
		{"gpt-4.1-nano", 1800, 2400, High, Count{Tokens: 3572, Bound: 7559}}, // 1452 patches
		{"gpt-4.1-mini", 128, 64, High, Count{Tokens: 13, Bound: 14}},
		{"gpt-4.1-nano", 128, 64, High, Count{Tokens: 20, Bound: 21}},
		{"o4-mini", 128, 64, High, Count{Tokens: 14, Bound: 15}},
		{"gpt-4.1-mini", 4000, 1474, High, Count{Tokens: 2489, Bound: 2490}}, // 24 by 64 patches
		{"gpt-4.1-mini", 1024, 1024, High, Count{Tokens: 1659, Bound: 1660}},
		{"gpt-4.1-mini", 1800, 2400, High, Count{Tokens: 4977, Bound: 4978}}, // 48 by 64 patches
		{"gpt-5-mini", 1024, 1024, Auto, Count{Tokens: 1229, Bound: 1660}},
	}
	for _, tt := range tests {
		got := ForModel(tt.model).Image.Count(tt.width, tt.height, tt.detail)
		tt.want.Exact = tt.want.Tokens == tt.want.Bound && tt.model != "o1"
		if got != tt.want {
			t.Errorf("%s, %d by %d, detail %d: %v, want %v", tt.model, tt.width, tt.height, tt.detail, got, tt.want)
		}
	}
}

// The guide's example for a budget of 1,536 patches.
func TestPatches(t *testing.T) {
	t.Parallel()
	if n := patches(1800, 2400, Sizing{65535, 1536}); n != 1452 {
		t.Errorf("1800 by 2400 in 1536 patches: %d, want 1452", n)
	}
	if n := patches(60000, 10, Sizing{65535, 3}); n > 3 {
		t.Errorf("60000 by 10 in three patches: %d", n)
	}
}

// Anthropic's table ("Vision", resolution and token cost).
func TestClaude(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ width, height, standard, high int64 }{
		{200, 200, 64, 64},
		{1000, 1000, 1296, 1296},
		{1092, 1092, 1521, 1521},
		{1920, 1080, 1560, 2691},
		{2000, 1500, 1564, 3888},
		{3840, 2160, 1560, 4784},
		{4928, 858, 560, 1472}, // halves are rounded to even: 1564 without
	} {
		standard := ForModel("claude-sonnet-4-6").Image.Count(tt.width, tt.height, Auto)
		high := ForModel("claude-opus-4-8").Image.Count(tt.width, tt.height, Auto)
		if standard.Tokens != tt.standard || high.Tokens != tt.high {
			t.Errorf("%d by %d: %d and %d, want %d and %d", tt.width, tt.height, standard.Tokens, high.Tokens, tt.standard, tt.high)
		}
	}
	if w, h := (Claude{1568, 1568}).resized(1520, 1075); w != 1307 || h != 924 {
		t.Errorf("1520 by 1075: %d by %d, want 1307 by 924", w, h)
	}
}

// resizes holds what transformers 5.24 and Anthropic's reference implementation
// answer, in tokens without markers.
var resizes = []struct{ width, height, qwen2, qwen3, qwen3Omni, standard, high int64 }{
	{1, 1, 4, 64, 4, 1, 1},
	{14, 14, 4, 64, 4, 1, 1},
	{42, 42, 4, 64, 4, 4, 4},
	{70, 70, 4, 64, 4, 9, 9},
	{70, 14, 5, 72, 4, 3, 3},
	{98, 42, 8, 78, 6, 8, 8},
	{16, 48, 8, 70, 8, 2, 2},
	{80, 112, 12, 70, 8, 12, 12},
	{28, 5600, 200, 175, 175, 56, 92},
	{200, 1, 29, 114, 25, 8, 8},
	{56, 56, 4, 64, 4, 4, 4},
	{55, 57, 4, 72, 4, 6, 6},
	{1024, 1024, 1369, 1024, 1024, 1369, 1369},
	{1920, 1080, 2691, 2040, 2040, 1560, 2691},
	{1080, 1920, 2691, 2040, 2040, 1560, 2691},
	{3840, 2160, 10549, 8160, 8160, 1560, 4784},
	{4032, 3024, 15552, 11844, 11844, 1564, 4740},
	{3584, 3584, 16384, 12544, 12544, 1521, 4761},
	{3585, 3584, 16384, 12544, 12544, 1521, 4761},
	{3583, 3585, 16384, 12544, 12544, 1560, 4761},
	{4096, 4096, 16384, 16384, 12544, 1521, 4761},
	{4095, 4097, 16256, 16384, 12432, 1560, 4761},
	{8000, 8000, 16384, 16384, 12544, 1521, 4761},
	{16384, 16384, 16384, 16384, 12544, 1521, 4761},
	{65535, 1000, 15540, 15540, 11778, 56, 184},
	{10, 1000, 20, 80, 18, 36, 36},
	{255, 257, 81, 64, 64, 100, 100},
	{256, 256, 81, 64, 64, 100, 100},
	{250, 250, 81, 64, 64, 81, 81},
	{12000, 61, 858, 750, 750, 56, 92},
	{3604, 1190, 5418, 4181, 4181, 1064, 2852},
	{2710, 3748, 12998, 9945, 9945, 1564, 4779},
	{355, 243, 117, 88, 88, 117, 117},
	{448, 2305, 1312, 1008, 1008, 616, 1328},
	{1019, 2870, 3672, 2880, 2880, 1120, 3036},
	{3396, 4511, 16317, 14946, 12513, 1564, 4740},
	{3480, 503, 2232, 1744, 1744, 504, 1288},
	{1408, 1010, 1800, 1408, 1408, 1518, 1887},
	{36, 169, 6, 72, 5, 14, 14},
	{11953, 9026, 16317, 16317, 12416, 1564, 4740},
	{3457, 3048, 13407, 10260, 10260, 1554, 4745},
	{11894, 7476, 16261, 16261, 12408, 1550, 4730},
	{9049, 2093, 16226, 16226, 12296, 728, 2024},
	{173, 137, 30, 72, 20, 35, 35},
	{2967, 533, 2014, 1581, 1581, 616, 1564},
	{227, 139, 40, 77, 28, 45, 45},
	{11522, 9536, 16240, 16240, 12423, 1548, 4725},
	{139, 320, 55, 78, 40, 60, 60},
	{274, 297, 110, 81, 81, 110, 110},
	{211, 350, 96, 77, 77, 104, 104},
	{3925, 10909, 16188, 16188, 12462, 1176, 3128},
	{1848, 3735, 8778, 6786, 6786, 1568, 4232},
	{10713, 4049, 16224, 16224, 12376, 1232, 3220},
	{2436, 3485, 10788, 8284, 8284, 1551, 4756},
	{6923, 3526, 16289, 16289, 12324, 1540, 4324},
	{3205, 2216, 9006, 6900, 6900, 1551, 4731},
	{4, 184, 14, 110, 12, 7, 7},
	{301, 349, 132, 99, 99, 143, 143},
	{2036, 3338, 8687, 6656, 6656, 1550, 4752},
	{10823, 5673, 16192, 16192, 12474, 1566, 4508},
}

func TestResizes(t *testing.T) {
	t.Parallel()
	for _, r := range resizes {
		for _, tt := range []struct {
			model string
			want  int64
		}{
			{"Qwen/Qwen2.5-VL-7B-Instruct", r.qwen2 + 2},
			{"Qwen/Qwen3-VL-8B-Instruct", r.qwen3 + 2},
			{"Qwen3-Omni-30B-A3B-Instruct", r.qwen3Omni + 2},
			{"claude-opus-4-6", r.standard},
			{"claude-opus-4-7", r.high},
		} {
			c := ForModel(tt.model).Image.Count(r.width, r.height, Auto)
			if c.Tokens != tt.want || c.Bound < tt.want {
				t.Errorf("%s, %d by %d: %v, want %d", tt.model, r.width, r.height, c, tt.want)
			}
		}
	}
}

// SGLang rounds no side to nothing, and counts more for a narrow image.
func TestQwenBoundHoldsForSGLang(t *testing.T) {
	t.Parallel()
	c := ForModel("qwen2-vl").Image.Count(1000, 10, Auto)
	if c.Tokens != 20+2 || c.Bound != 36+2 || c.Exact {
		t.Errorf("%v, want 22 and 38", c)
	}
	c = ForModel("qwen2-vl").Image.Count(1024, 1024, Auto)
	if c.Tokens != 37*37+2 || !c.Exact {
		t.Errorf("%v, want 1371 exactly", c)
	}
	if c := ForModel("qwen2-vl").Image.Count(20100, 100, Auto); c.Bound != 16386 {
		t.Errorf("an image of 201 to 1 has the bound %d, want the largest", c.Bound)
	}
}

func TestGemini(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ width, height, want int64 }{
		{384, 384, 258},
		{385, 384, 4 * 258},
		{960, 540, 6 * 258}, // Google's example
		{1000, 300, 10 * 258},
		{1000, 1, 32768},
	} {
		if c := ForModel("gemini-2.5-flash").Image.Count(tt.width, tt.height, Auto); c.Tokens != tt.want {
			t.Errorf("%d by %d: %d, want %d", tt.width, tt.height, c.Tokens, tt.want)
		}
	}
}

// What holds for every rule: the figure is never above the bound, the bound never
// above what an unknown image has, and the two sides can change places.
func TestEveryRule(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	rules := []Rules{unknown, claudeStandard, claudeHigh}
	for _, f := range families {
		rules = append(rules, f.rules)
	}
	for i, r := range rules {
		for _, d := range []Detail{Auto, Low, High, Original, 9} {
			most := r.Image.Unknown(d)
			if most.Tokens < 1 || most.Tokens > most.Bound {
				t.Errorf("rule %d, detail %d: %v of an unknown image", i, d, most)
			}
			for range 300 {
				w, h := side(rng), side(rng)
				c, turned := r.Image.Count(w, h, d), r.Image.Count(h, w, d)
				if c != turned || c.Tokens < 0 || c.Tokens > c.Bound || c.Bound > most.Bound {
					t.Fatalf("rule %d, %d by %d, detail %d: %v, turned %v, unknown %v", i, w, h, d, c, turned, most)
				}
			}
		}
	}
}

// side is of any order of magnitude, impossible ones included.
func side(rng *rand.Rand) int64 {
	n := rng.Int64() >> rng.IntN(63)
	if rng.IntN(20) == 0 {
		return -n
	}
	return n
}

// The guides allow for roundings of their own: no way to round makes more tokens
// than the bound.
func TestBoundsHoldForEveryRounding(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		w, h := 1+rng.Int64N(6000), 1+rng.Int64N(6000)
		_, most := tiles(min(w, h), max(w, h))
		if n := realTiles(float64(min(w, h)), float64(max(w, h))); n > most {
			t.Fatalf("%d by %d: %d tiles without rounding, bound %d", w, h, n, most)
		}
		z := Sizing{Edge: 2048, Budget: 6144}
		if n := realPatches(float64(w), float64(h)); n > mostPatches(w, h, z) {
			t.Fatalf("%d by %d: %d patches without rounding, bound %d", w, h, n, mostPatches(w, h, z))
		}
	}
}

func realTiles(short, long float64) int64 {
	if long > 2048 {
		short, long = short*2048/long, 2048
	}
	if short > 768 {
		short, long = 768, long*768/short
	}
	return ceil(short/512) * ceil(long/512)
}

func realPatches(w, h float64) int64 {
	if long := max(w, h); long > 2048 {
		w, h = w*2048/long, h*2048/long
	}
	return ceil(w/32) * ceil(h/32)
}

// ceil forgives what floating point adds to a whole number.
func ceil(x float64) int64 {
	n := int64(x)
	if x-float64(n) > 1e-9 {
		n++
	}
	return n
}

func TestForModel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		want ImageRule
	}{
		{"gpt-4o", gpt4},
		{"GPT-4o-2024-11-20", gpt4},
		{"openai/gpt-4o", gpt4},
		{"ft:gpt-4o-2024-08-06:org::id", gpt4},
		{"gpt-4o-mini", Tiles{2833, 5667}},
		{"gpt-4.1-mini-2025-04-14", always(fit2048).times(162, 0, Sizing{})},
		{"gpt-5-chat-latest", gpt5},
		{"gpt-5-2025-08-07", gpt5},
		{"gpt-5.6-luna", gpt56},
		{"gpt-6-astra", Loose{gpt56, context1M}},
		{"o3-2025-04-16", o1},
		{"o4-mini", always(budget1K).times(172, 0, fit2048)},
		{"Qwen/Qwen2.5-VL-72B-Instruct-AWQ", Qwen{28, 3136, 12845056}},
		{"/models/qwen3-vl", Qwen{32, 65536, 16777216}},
		{"Qwen3.5-9B", Qwen{32, 65536, 16777216}},
		{"qwen3-30b", Guess{}}, // sees nothing
		{"claude-3-5-sonnet@20240620", Claude{1568, 1568}},
		{"claude-sonnet-4-20250514", Claude{1568, 1568}},
		{"us.anthropic.claude-opus-4-20250514-v1:0", Claude{1568, 1568}},
		{"claude-haiku-4-5-20251001", Claude{1568, 1568}},
		{"claude-3-opus-latest", Claude{1568, 1568}},
		{"anthropic/claude-opus-4.7", Claude{2576, 4784}},
		{"claude-sonnet-5", Claude{2576, 4784}},
		{"claude-latest", Claude{2576, 4784}},
		{"gemini-2.5-pro", Gemini{}},
		{"models/gemini-3-flash", geminiBudget{}},
		{"deepseek-v3", Guess{}},
		{"", Guess{}},
		{"/", Guess{}},
	} {
		if got := ForModel(tt.name).Image; got != tt.want {
			t.Errorf("%q: %#v, want %#v", tt.name, got, tt.want)
		}
	}
}

// No entry of the table is out of reach behind a shorter one.
func TestFamiliesAreInOrder(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		if got := ForModel(f.prefix); got != f.rules {
			t.Errorf("%s: another entry is found first", f.prefix)
		}
	}
}

func TestLoose(t *testing.T) {
	t.Parallel()
	for bound, want := range map[int64]int64{100: 1445, 5000: 5000} {
		r := Loose{gpt4, bound}
		if c := r.Count(2048, 768, High); c != (Count{Tokens: 1445, Bound: want}) {
			t.Errorf("at least %d: %+v", bound, c)
		}
		if c := r.Unknown(High); c != (Count{Tokens: 1105, Bound: want}) {
			t.Errorf("at least %d, unknown: %+v", bound, c)
		}
	}
}

func TestAdd(t *testing.T) {
	t.Parallel()
	exact, guess := proven(5, 5), upTo(1, 9)
	if c := exact.Add(exact); c != (Count{10, 10, true}) {
		t.Errorf("%+v", c)
	}
	if c := exact.Add(guess); c != (Count{6, 14, false}) {
		t.Errorf("%+v", c)
	}
}
