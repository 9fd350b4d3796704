module github.com/weirproxy/weir/benchmarks/tokens

go 1.26.8

require (
	github.com/google/go-cmp v0.7.0
	github.com/pkoukk/tiktoken-go v0.1.8
	github.com/pkoukk/tiktoken-go-loader v0.0.2
	github.com/tiktoken-go/tokenizer v0.10.0
	github.com/weirproxy/weir v0.0.0
	golang.org/x/sys v0.49.0
)

replace github.com/weirproxy/weir => ../..
