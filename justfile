# Five words; each is one line of cargo, xtask or a script.

check:
    cargo xtask check

test:
    cargo test --workspace

run *arguments:
    cargo run --release -- serve {{arguments}}

bench *arguments: release
    conformance/bench-vs-rabbitmq {{arguments}}

release:
    cargo build --release --locked
