package istio

// The parts of Istio's objects that are written, as its API spells them
// (https://istio.io/latest/docs/reference/config/networking/). The fields stand in
// the order in which they are printed.

type object struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       any      `yaml:"spec"`
}

type metadata struct {
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
}

type gatewaySpec struct {
	Selector map[string]string `yaml:"selector"`
	Servers  []server          `yaml:"servers"`
}

type server struct {
	Port  port       `yaml:"port"`
	Hosts []string   `yaml:"hosts"`
	TLS   *serverTLS `yaml:"tls,omitempty"`
}

type port struct {
	Number   uint32 `yaml:"number"`
	Name     string `yaml:"name"`
	Protocol string `yaml:"protocol"`
}

type serverTLS struct {
	Mode               string `yaml:"mode"`
	CredentialName     string `yaml:"credentialName"`
	MinProtocolVersion string `yaml:"minProtocolVersion"`
}

type virtualServiceSpec struct {
	ExportTo []string    `yaml:"exportTo"`
	Gateways []string    `yaml:"gateways"`
	Hosts    []string    `yaml:"hosts"`
	HTTP     []httpRoute `yaml:"http"`
}

type httpRoute struct {
	Name    string             `yaml:"name"`
	Route   []routeDestination `yaml:"route"`
	Retries retries            `yaml:"retries"`
}

type routeDestination struct {
	Destination destination `yaml:"destination"`
}

type destination struct {
	Host string       `yaml:"host"`
	Port portSelector `yaml:"port"`
}

type portSelector struct {
	Number uint32 `yaml:"number"`
}

type retries struct {
	Attempts int `yaml:"attempts"`
}

type serviceEntrySpec struct {
	ExportTo   []string        `yaml:"exportTo"`
	Hosts      []string        `yaml:"hosts"`
	Location   string          `yaml:"location"`
	Ports      []port          `yaml:"ports"`
	Resolution string          `yaml:"resolution"`
	Endpoints  []entryEndpoint `yaml:"endpoints"`
}

type entryEndpoint struct {
	Address string            `yaml:"address"`
	Ports   map[string]uint32 `yaml:"ports"`
}

type destinationRuleSpec struct {
	ExportTo         []string         `yaml:"exportTo"`
	WorkloadSelector workloadSelector `yaml:"workloadSelector"`
	Host             string           `yaml:"host"`
	TrafficPolicy    trafficPolicy    `yaml:"trafficPolicy"`
}

type workloadSelector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

type trafficPolicy struct {
	ConnectionPool   connectionPool   `yaml:"connectionPool"`
	OutlierDetection outlierDetection `yaml:"outlierDetection"`
	TLS              *clientTLS       `yaml:"tls,omitempty"`
}

type connectionPool struct {
	HTTP httpPool `yaml:"http"`
}

type httpPool struct {
	H2UpgradePolicy string `yaml:"h2UpgradePolicy"`
	IdleTimeout     string `yaml:"idleTimeout"`
}

type outlierDetection struct {
	Consecutive5xx        uint32 `yaml:"consecutive5xxErrors"`
	ConsecutiveGateway    uint32 `yaml:"consecutiveGatewayErrors"`
	SplitLocalOrigin      bool   `yaml:"splitExternalLocalOriginErrors"`
	ConsecutiveLocal      uint32 `yaml:"consecutiveLocalOriginFailures"`
	Interval              string `yaml:"interval"`
	BaseEjectionTime      string `yaml:"baseEjectionTime"`
	MaxEjectionPercentage uint32 `yaml:"maxEjectionPercent"`
}

type clientTLS struct {
	Mode            string   `yaml:"mode"`
	CredentialName  string   `yaml:"credentialName,omitempty"`
	CACertificates  string   `yaml:"caCertificates,omitempty"`
	SNI             string   `yaml:"sni"`
	SubjectAltNames []string `yaml:"subjectAltNames"`
}
