"""What measured throughput costs on rented machines: `cost.cost`, its options and the price table."""
