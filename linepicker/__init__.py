"""From which of our phone lines may this message go out, and when?"""
