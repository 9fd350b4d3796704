package profile

const authorization = "authorization"

// vllmMetrics are vLLM's; gpu_cache_usage_perc is the older name.
var vllmMetrics = Metrics{
	Path:          "/metrics",
	Running:       []string{"vllm:num_requests_running"},
	Waiting:       []string{"vllm:num_requests_waiting"},
	KVUse:         []string{"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"},
	PrefixQueries: []string{"vllm:prefix_cache_queries_total", "vllm:prefix_cache_queries"},
	PrefixHits:    []string{"vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits"},
}

// table has the profiles: servers that operators run themselves, then providers.
var table = []Profile{
	{
		Name: "vllm", Title: "vLLM", BasePath: "/v1", Header: authorization,
		Health: "/health", Metrics: vllmMetrics, PrefixCache: true, StreamUsage: OnRequest,
		Notes: []string{
			"`--api-key` guards /v1 alone: /metrics, /tokenize and /score stay open.",
			"Cached tokens are reported with `--enable-prompt-tokens-details`.",
		},
		Sources: []string{
			"vLLM 0.33.0: vllm/entrypoints/serve/instrumentator/health.py, vllm/v1/metrics/loggers.py",
			"vllm/entrypoints/serve/utils/api_utils.py (usage of streams), vllm/entrypoints/serve/middleware/authenticate.py",
		},
	},
	{
		Name: "vllm-ascend", Title: "vLLM Ascend", BasePath: "/v1", Header: authorization,
		Health: "/health", Metrics: vllmMetrics, PrefixCache: true, StreamUsage: OnRequest,
		Notes: []string{"It is vLLM with a plugin: what holds is what holds for the vLLM that it pins."},
		Sources: []string{
			"vllm-project/vllm-ascend, .github/vllm-release-tag.commit (August 2026: vLLM v0.27.1)",
			"vllm-project/vllm-ascend, docs/source/user_guide/ms_service_metric.md",
		},
	},
	{
		Name: "sglang", Title: "SGLang", BasePath: "/v1", Header: authorization,
		Health: "/health",
		Metrics: Metrics{
			Path:    "/metrics",
			Running: []string{"sglang:num_running_reqs"},
			Waiting: []string{"sglang:num_queue_reqs"},
			KVUse:   []string{"sglang:token_usage"},
		},
		PrefixCache: true, StreamUsage: OnRequest,
		Notes: []string{
			"Metrics need `--enable-metrics`; cached tokens are reported with `--enable-cache-report`.",
			"/health may generate a token while the server is idle: check it every few seconds and not more often.",
		},
		Sources: []string{
			"SGLang 0.5.23: sglang/srt/entrypoints/http_server.py, sglang/srt/observability/metrics_collector.py",
			"sglang/srt/entrypoints/openai/protocol.py (usage)",
		},
	},
	{
		Name: "mindie", Title: "MindIE", BasePath: "/v1", Header: authorization,
		Health: "/health",
		Metrics: Metrics{
			Path: "/metrics", Port: 1027,
			Running: []string{"num_requests_running"},
			Waiting: []string{"num_requests_waiting"},
			KVUse:   []string{"npu_cache_usage_perc"},
		},
		PrefixCache: true, StreamUsage: LastChunk,
		Notes: []string{
			"Metrics need MIES_SERVICE_MONITOR_MODE=1 and have a port of their own, metricsPort (1027).",
			"Never let anybody reach the management port (1026): GET /stopService shuts the server down.",
			"MindIE Motor, the coordinator before several engines, speaks vLLM's metrics: use vllm-ascend for it.",
		},
		Sources: []string{
			"Ascend/MindIE-LLM, docs/zh, service_APIs_usage_guidance.md, service_parameter_configuration.md",
			"Ascend/MindIE-LLM, http_handler.cpp, prometheus_metrics.cpp, environment_variable.md",
			"that /health is on the serving port: unverified",
		},
	},
	{
		Name: "llama.cpp", Title: "llama.cpp", BasePath: "/v1", Header: authorization,
		Health: "/health",
		Metrics: Metrics{
			Path:    "/metrics",
			Running: []string{"llamacpp:requests_processing"},
			Waiting: []string{"llamacpp:requests_deferred"},
		},
		PrefixCache: true, StreamUsage: OnRequest,
		Notes: []string{"Metrics need `--metrics`; the use of the KV cache is not told."},
		Sources: []string{
			"ggml-org/llama.cpp, tools/server/README.md",
			"that usage of streams is OpenAI's: unverified",
		},
	},
	{
		Name: "tgi", Title: "Text Generation Inference", BasePath: "/v1", Header: authorization,
		Health: "/health",
		Metrics: Metrics{
			Path:    "/metrics",
			Running: []string{"tgi_batch_current_size"},
			Waiting: []string{"tgi_queue_size"},
		},
		PrefixCache: true, StreamUsage: OnRequest,
		Notes: []string{"The use of the KV cache is not told."},
		Sources: []string{
			"Hugging Face, text-generation-inference: reference/metrics",
			"health path, prefix cache and usage of streams: unverified",
		},
	},
	{
		Name: "ollama", Title: "Ollama", BasePath: "/v1", Header: authorization,
		Health: "/api/version", PrefixCache: true, StreamUsage: OnRequest,
		Notes: []string{"It tells no metrics: weir goes by its own open requests."},
		Sources: []string{
			"ollama/ollama: server/routes.go, openai/openai.go, docs/faq",
		},
	},
	{
		Name: "openai", Title: "OpenAI", Provider: true, BasePath: "/v1", Header: authorization,
		StreamUsage: OnRequest,
		Notes:       []string{"It is the profile of any other service that speaks OpenAI's API."},
		Sources: []string{
			"openai/openai-python 3.3.1: src/openai/_client.py, src/openai/types/completion_usage.py",
		},
	},
	{
		Name: "azure-openai", Title: "Azure OpenAI", Provider: true, BasePath: "/openai/v1", Header: "api-key",
		StreamUsage: OnRequest,
		Notes: []string{
			"pools[].model is the deployment's name.",
			"weir speaks the v1 API, which has no dated api-version and the same paths as OpenAI's.",
		},
		Sources: []string{
			"learn.microsoft.com: azure/ai-foundry/openai/api-version-lifecycle",
		},
	},
	{
		Name: "dashscope", Title: "DashScope (Qwen)", Provider: true, BasePath: "/compatible-mode/v1", Header: authorization,
		StreamUsage: OnRequest,
		Notes: []string{
			"Some thinking models answer streams alone, or want enable_thinking to be false otherwise.",
			"insufficient_quota is temporary here: a limit of tokens a minute.",
		},
		Sources: []string{
			"help.aliyun.com: model-studio/context-cache, model-studio/error-code, model-studio/rate-limit",
			"that usage of streams is OpenAI's: unverified",
		},
	},
	{
		Name: "moonshot", Title: "Moonshot (Kimi)", Provider: true, BasePath: "/v1", Header: authorization,
		StreamUsage: InChoice,
		Notes:       []string{"Its limiter counts the max_tokens that are asked for: ask for what is needed."},
		Sources: []string{
			"platform.moonshot.cn: docs/introduction",
			"usage in the last event's choice: seen second-hand (beam_weaver 0.1.12)",
		},
	},
	{
		Name: "siliconflow", Title: "SiliconFlow", Provider: true, BasePath: "/v1", Header: authorization,
		StreamUsage: EveryChunk,
		Sources: []string{
			"docs.siliconflow.cn: api-reference",
			"usage in every event: unverified",
		},
	},
	{
		Name: "volcano-ark", Title: "Volcano Ark (Doubao)", Provider: true, BasePath: "/api/v3", Header: authorization,
		StreamUsage: OnRequest,
		Notes:       []string{"pools[].model is an endpoint's id (ep-…) or a model's."},
		Sources: []string{
			"volcengine.com: docs/82379, articles 38136 and 38138",
			"that usage of streams is OpenAI's: unverified",
		},
	},
	{
		Name: "deepseek", Title: "DeepSeek", Provider: true, BasePath: "/v1", Header: authorization,
		StreamUsage: OnRequest,
		Notes:       []string{"Long waits are filled with comments in a stream and with blank lines before a JSON body."},
		Sources: []string{
			"api-docs.deepseek.com: quick_start/rate_limit, quick_start/error_codes, guides/kv_cache",
		},
	},
}
