"""What people do, told with the real ssh and sshd."""
